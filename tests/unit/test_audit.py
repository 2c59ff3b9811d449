"""The audit of the locked packages: what is vulnerable is told, what nobody could be asked about is never clean."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / ".ci" / "audit.py"
SOUND: dict[str, Any] = {"name": "click", "version": "8.3.3", "vulns": []}
SKIPPED = {"name": "rich", "skip_reason": "Dependency not found on PyPI and could not be audited: rich (15.0.0)"}
HOLED = {
    "name": "redis",
    "version": "4.5.0",
    "vulns": [{"id": "PYSEC-1", "aliases": ["CVE-2"], "fix_versions": ["4.5.4"], "description": ""}],
}


@pytest.fixture
def audit(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "audit", module)  # its dataclass looks there
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("reported", "code", "words"),
    [
        ([SOUND], 0, "a.lock: 1 packages, no advisory is known"),
        ([SOUND, HOLED], 1, "VULNERABLE  redis 4.5.0: PYSEC-1, fixed in 4.5.4"),
        ([HOLED, SKIPPED], 1, "VULNERABLE"),
        ([SOUND, SKIPPED], 3, "NOT AUDITED  a.lock: of rich nothing could be asked"),
        ([SKIPPED], 3, "NOT AUDITED  a.lock: no source of advisories could be reached. This is no all-clear."),
        ([], 3, "NOT AUDITED"),
    ],
)
def test_only_what_was_asked_about_is_called_clean(
    audit: ModuleType, reported: list[dict[str, Any]], code: int, words: str
) -> None:
    """pip-audit itself says "no known vulnerabilities" of packages that its source does not know at all."""
    findings = audit.Findings()
    findings.take(reported, {})
    assert audit.code_of([findings]) == code
    assert words in findings.told("a.lock")


def test_a_second_source_may_answer_for_the_first(audit: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the first could not be asked about is asked of the second."""
    answers = {"pypi": [SOUND, SKIPPED], "osv": [SOUND, SOUND | {"name": "rich"}]}
    monkeypatch.setattr(audit, "report_of", lambda _, service: answers[service])
    services = ["pypi", "osv"]
    assert audit.code_of([audit.audited("a.lock", services)]) == 0
    answers["osv"] = []
    assert audit.code_of([audit.audited("a.lock", services)]) == 3
    assert services == ["pypi"]


def test_a_source_that_hangs_holds_nothing_up(audit: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is left alone after its time, like one that answers something else than a report."""
    monkeypatch.setattr(audit, "TIMEOUT_S", 0.001)
    assert audit.report_of("dev.lock", "pypi") == []


def test_an_advisory_may_be_accepted_with_a_reason(audit: ModuleType) -> None:
    """By its id or by one of its other names."""
    findings = audit.Findings()
    findings.take([HOLED], {"CVE-2": "the part of redis-py it is about is not used"})
    assert audit.code_of([findings]) == 0
