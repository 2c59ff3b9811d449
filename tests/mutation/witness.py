"""What pytest must tell of a run without a guard: whose code was tested, and how each test failed that did.

A plugin (`-p tests.mutation.witness --witness FILE`): the file gets one JSON list of [node id, phase, error] a failure.
"""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

_failures = pytest.StashKey[list[list[str]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--witness", help="where to write the failures")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_failures] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    report = yield
    if report.failed and call.excinfo is not None:
        error = call.excinfo.type.__name__
        if error == "Failed" and "Timeout" in str(call.excinfo.value):
            error = "Timeout"
        item.config.stash[_failures].append([item.nodeid, report.when, error])
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    where = session.config.getoption("--witness")
    strangers = _elsewhere(session.config.rootpath)
    if strangers:
        raise pytest.UsageError(f"tested is another tree: {strangers[0]}")
    if where:
        Path(where).write_text(json.dumps(session.config.stash[_failures]))


def _elsewhere(root: Path) -> list[str]:
    """Modules of ours that came from another tree than the one that is tested."""
    files = {
        name: Path(file)
        for name, module in sys.modules.items()
        if name.partition(".")[0] in {"models", "streams", "tests"} and (file := getattr(module, "__file__", None))
    }
    return [f"{name} from {file}" for name, file in files.items() if not file.is_relative_to(root)]
