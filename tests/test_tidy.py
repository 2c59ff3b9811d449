"""The repository itself: what its pages say is true, and nothing lies in it that does not belong there."""

import ast
import json
import re
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from models.codec import codec_for
from models.events import EVENT_TYPES
from models.outputs import Outcome, Score, TriggerCancelled, TriggerSent, outcome_id, trigger_id
from models.topics import TOPICS
from streams import errors
from streams.cli import COMMANDS
from streams.cli.ask import explanation
from streams.engagement.metrics import REGISTRY
from streams.engagement.scoring import ScoreModel
from streams.settings import PREFIX, Settings, names

ROOT = Path(__file__).parents[1]
BYTES_MAX = 300_000
UNWANTED = re.compile(
    r"(^|/)(uv\.lock|\.env|\.venv|node_modules|__pycache__|\.pulseline|\.DS_Store)(/|$)"
    r"|\.(jar|pyc|so|whl|rdb|aof|log|pid|sqlite|zip|gz|tgz|pem|key)$"
)
HOME = re.compile(r"(?<![\w.~-])/(?:work|home|Users|root)/\w|(?<![\w.])[A-Z]:\\Users")
ADDRESS = re.compile(r"https?://|index-url|find-links|extra-index|--trusted-host")
LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])+)\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@cache
def tracked() -> tuple[str, ...]:
    """Paths in the repository, also those not committed yet, but none that are ignored."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return tuple(sorted({line for line in listed.splitlines() if (ROOT / line).is_file()}))


def texts() -> Iterator[tuple[str, str]]:
    for path in tracked():
        try:
            yield path, (ROOT / path).read_text()
        except UnicodeDecodeError:
            yield path, ""


PAGES = [path for path in tracked() if path.endswith(".md")]


def prose(page: str) -> str:
    """A page without its code blocks."""
    return FENCE.sub("", (ROOT / page).read_text())


def blocks(page: str, language: str) -> list[str]:
    return [code for found, code in FENCE.findall((ROOT / page).read_text()) if found == language]


def anchor(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@cache
def anchors(page: Path) -> frozenset[str]:
    return frozenset(anchor(heading) for heading in re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE))


@cache
def defined(module: Path) -> frozenset[str]:
    """Classes, functions, `Class.method`s and module variables of a Python file."""
    found: set[str] = set()
    for node in ast.parse(module.read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            inner = (each for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef))
            found |= {f"{node.name}.{each.name}" for each in inner}
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return frozenset(found)


# ------------------------------------------------------------------------------------------------ pages


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    """A link's file and heading exist; a link that is a name in code leads to the file that defines it."""
    broken = []
    for text, target in LINK.findall(prose(page)):
        if target.startswith("https://"):
            continue
        path, _, heading = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        name = text.strip("`") if text.startswith("`") and path.endswith(".py") else None
        if (
            not file.exists()
            or (heading and heading not in anchors(file))
            or (name is not None and re.fullmatch(r"[A-Za-z_.]+", name) and name not in defined(file))
        ):
            broken.append(f"[{text}]({target})")
    assert not broken


@pytest.mark.parametrize("page", PAGES)
def test_python_in_pages_compiles(page: str) -> None:
    """Every block of Python is Python."""
    for code in blocks(page, "python"):
        compile(code, page, "exec")


@pytest.mark.parametrize("page", PAGES)
def test_pages_name_real_settings_and_commands(page: str) -> None:
    """Every PULSELINE_* is a setting, every `pulseline ...` a command, every `make ...` a target."""
    text = (ROOT / page).read_text()
    written = set(re.findall(rf"{PREFIX}([A-Z_]+[A-Z])", text))
    assert {name for name in written if not name.startswith("TEST_")} <= names().keys()
    assert set(re.findall(r"(?:`|^)pulseline ([a-z]+)", text, re.MULTILINE)) <= COMMANDS.keys()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:`|^)make ([a-z-]+)", text, re.MULTILINE)) <= targets


def test_the_settings_in_the_readme_have_their_defaults() -> None:
    """Each default in the table is read as the default of the code."""
    rows = re.findall(rf"^\| `{PREFIX}([A-Z_]+)` \| (?:`([^`]*)`)? ?\|", prose("README.md"), re.MULTILINE)
    assert len(rows) > 10
    for name, text in rows:
        attribute = names()[name]
        found = Settings.from_environ({}, {name: text} if text else {})
        assert getattr(found, attribute) == Settings.model_fields[attribute].default, name


def test_every_command_is_in_the_readme() -> None:
    """The table of commands has each of them, in the order of the help."""
    assert re.findall(r"^\| `([a-z]+)` \|", prose("README.md"), re.MULTILINE) == list(COMMANDS)


def test_numbers_and_names_in_the_pages_are_those_of_the_registries() -> None:
    """Every topic stands in the README, every metric in the changelog, and the number of types is right."""
    readme, changelog = (ROOT / "README.md").read_text(), (ROOT / "CHANGELOG.md").read_text()
    assert {name for name in TOPICS if f"engagement.{name}" not in readme} == set()
    assert f"{len(EVENT_TYPES)} event types" in changelog
    assert {name for name in REGISTRY if name.replace("_", " ") not in changelog} == set()


def json_blocks() -> list[dict[str, Any]]:
    return [json.loads(block) for block in blocks("README.md", "json")]


def test_the_outputs_in_the_readme_are_outputs() -> None:
    """They have every field of the contract, and the ids that follow from their facts."""
    event, trigger, cancel, outcome, score = json_blocks()
    sent = TriggerSent.model_validate(trigger, strict=False)
    assert sent.trigger_id == trigger_id(sent.customer_id, sent.cart_id, sent.last_touch_ms, sent.step)
    assert sent.idle_ms == sent.emitted_ms - sent.last_touch_ms
    ended = Outcome.model_validate(outcome, strict=False)
    assert ended.outcome_id == outcome_id(
        ended.customer_id, ended.cart_id, ended.last_touch_ms, ended.outcome, ended.step
    )
    assert sent.trigger_id in TriggerCancelled.model_validate(cancel, strict=False).trigger_ids == ended.trigger_ids
    found = Score.model_validate(score, strict=False)
    assert found.model_version == sent.model_version == ScoreModel.default().version
    codec_for("clickstream.v1").read(event["customer_id"].encode(), json.dumps(event).encode(), event["occurred_at_ms"])


def test_the_explanation_in_the_readme_is_that_of_its_trigger() -> None:
    """`pulseline explain` says of the trigger, outcome and cancel shown what the README shows."""
    _, trigger, cancel, outcome, _ = json_blocks()
    (shown,) = [block for block in blocks("README.md", "") if block.startswith("Customer ")]
    assert shown.splitlines() == explanation(trigger, [outcome, cancel], None)


def test_decisions_are_numbered_and_indexed() -> None:
    """Every decision has its number in name and title, a status, and a line in the index; no number is left out."""
    folder = ROOT / "docs" / "decisions"
    found = sorted(path for path in folder.glob("*.md") if path.name != "README.md")
    assert [int(path.name[:4]) for path in found] == list(range(1, len(found) + 1))
    index = (folder / "README.md").read_text()
    for number, path in enumerate(found, start=1):
        heading = path.read_text().partition("\n")[0]
        assert heading.startswith(f"# {number}. "), path.name
        assert "\nStatus: " in path.read_text(), path.name
        assert f"| [{number}]({path.name}) | {heading.partition('. ')[2]} |" in index


def test_every_fatal_and_retriable_error_is_explained() -> None:
    """docs/operations.md has a row for each, with its exit code."""
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", prose("docs/operations.md"), re.MULTILINE))
    kinds: dict[str, type[errors.PulselineError]] = {
        name: each
        for name, each in vars(errors).items()
        if isinstance(each, type) and each.__base__ in {errors.Fatal, errors.Retriable}
    }
    assert rows.keys() == kinds.keys()
    for name, kind in kinds.items():
        assert rows[name] == "goes on" or int(rows[name].split()[0]) == kind.exit_code, name


# ------------------------------------------------------------------------------------------------ files


def test_every_module_says_what_it_is() -> None:
    """Each Python file under models, streams and bench begins with a docstring."""
    silent = [
        path
        for path in tracked()
        if path.endswith(".py") and path.startswith(("models/", "streams/", "bench/"))
        if ast.get_docstring(ast.parse((ROOT / path).read_text())) is None
    ]
    assert not silent


def test_nothing_here_that_is_made_or_fetched() -> None:
    """No lock of another tool, no jars, environments, caches, data, secrets; nothing large."""
    assert [path for path in tracked() if UNWANTED.search(path)] == []
    assert [path for path in tracked() if (ROOT / path).stat().st_size > BYTES_MAX] == []


def test_no_path_of_one_machine() -> None:
    """No file names a folder of somebody's home or workplace."""
    assert [path for path, text in texts() if path != "tests/test_tidy.py" and HOME.search(text)] == []


def test_locks_hold_versions_and_hashes_but_no_addresses() -> None:
    """Where packages come from is the business of the machine; that they are the right ones, of the lock."""
    locks = [path for path in tracked() if path.startswith("requirements/") or path.endswith("redis-binary.txt")]
    assert len(locks) == 5
    for path in locks:
        text = (ROOT / path).read_text()
        assert not ADDRESS.search(text), path
        pinned = re.findall(r"^[\w.-]+(?:\[[\w,]+\])?==", text, re.MULTILINE)
        assert pinned, path
        assert text.count("--hash=sha256:") >= len(pinned), path


def test_the_version_is_the_changelogs() -> None:
    """The distribution's version is released in the changelog, or is to be."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert re.search(
        rf"^## \[{re.escape(version)}\]|^To be {re.escape(version)}", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )
