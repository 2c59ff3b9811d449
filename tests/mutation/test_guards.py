"""The list of guards stays true to the code: cheap checks; `make mutation` takes each guard out and asks its tests."""

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

from tests.mutation.guard import Guard, every_guard, guards_of

ROOT = Path(__file__).parents[2]
GUARDS = every_guard()
REQUIRED = """
    ver compare at EXEC; idle compare; ver at load; gate of the next EXEC; `at` rule: decisions below K are muted
    position of the cut; timer of waiting events; silent time is a record in the log; rejected before EXEC
    W stays behind the clock by the lateness; cap of W: a punctuation is capped by its record's time
    co-partition assert (SplitTask); max(K): a cut never commits below K; Redis before publish; StateLost; StateGap
    generation confirmation before a claim; fingerprint: the time of the last record is compared
    LogMismatch: a position beyond the log end; fence limit; limit of failures in the handler
    the reject list after a handler bug; a run of another claim is dropped; a half-applied run is forgotten
    PAUSE_MS: ver is compared before a late publication; a profile leaves memory only once its cut is confirmed
    timers are paged in before a watermark passes them; order tombstone: at or before an order nothing opens
    cart tombstone: before the end nothing opens late; 60 s after an order only adding opens
    take-over of an emptied cart; event_id memory; event_id memory: 24 h; order_id memory: 30 d
    a repeated order closes nothing; late: an order leaves what was added after it
    late: an order reaches no cart opened after it; late: a touch does not move the last touch after a step
    late: the end of the last cart forbids to open; late: of the steps already due only the last gives a record
    future: 5 min; too_old: 400 d
"""
CONSTANT = re.compile(r"^([A-Z][A-Z_]*_MAX(?:_[A-Z]+)?)\b(?:: Final)?(?:, [A-Z_]+)? =", re.MULTILINE)
SETTING = re.compile(r"^    (\w+_max|timers_page): int", re.MULTILINE)
NO_BUFFER = """
    BACKOFF_MAX_MS BACKOFF_MAX_S ATTEMPT_MS_MAX VISIBLE_S_MAX CONNECT_S_MAX
    HALF_LIFE_HOURS_MAX WEIGHT_MAX QUANTITY_MAX AMOUNT_MINOR_MAX FOLLOWERS_MAX EXACT_INTEGER_MAX
    TOPIC_NAME_CHARS_MAX NESTED_BYTES_MAX
    REQUEST_BYTES_MAX BATCH_BYTES_MAX SHOWN_MAX REMEMBERED_MAX
"""
"""Times, values, names that Kafka bounds itself, and what clients and screens show: bounded, but no state of a task."""


def names_of(text: str) -> set[str]:
    return {name.strip() for line in text.strip().splitlines() for name in line.split(";")}


def identified(guard: Guard) -> str:
    return guard.name


def test_names_are_unique() -> None:
    """A name in the table means one guard."""
    assert [name for name, count in Counter(guard.name for guard in GUARDS).items() if count > 1] == []


def test_the_guards_of_the_protocol_and_of_the_carts_are_listed() -> None:
    """What the design demands of this list; a guard may be renamed here, not lost."""
    assert names_of(REQUIRED) - {guard.name for guard in GUARDS if not guard.equivalent} == set()


@pytest.mark.parametrize("guard", GUARDS, ids=identified)
def test_a_guard_stands_in_its_file_just_once(guard: Guard) -> None:
    """Its words are those of the code, and the code without it is Python still."""
    text = (ROOT / guard.file).read_text()
    assert text.count(guard.old) == 1
    assert guard.old != guard.new
    ast.parse(text.replace(guard.old, guard.new))


def test_the_tests_of_the_guards_are_there() -> None:
    """A test that was renamed or went must not leave its guard alone."""
    missing = []
    for test in {test for guard in GUARDS for test in guard.tests}:
        file, *names = test.split("::")
        path = ROOT / file
        text = path.read_text() if path.is_file() else ""
        name = names[-1].partition("[")[0] if names else ""
        if not re.search(rf"def {re.escape(name)}\(", text):
            missing.append(test)
    assert missing == []


def test_every_bound_has_its_guard() -> None:
    """Each constant or setting that ends a buffer is taken away, or moved by one, by a guard of this list."""
    bounds: set[str] = set()
    for folder in ("models", "streams"):
        for path in (ROOT / folder).rglob("*.py"):
            bounds.update(CONSTANT.findall(path.read_text()))
    bounds.update(SETTING.findall((ROOT / "streams/processing/plan.py").read_text()))
    taken = "\n".join(guard.old for guard in GUARDS if not guard.equivalent)
    left = {bound for bound in bounds if not re.search(rf"\b{bound}\b", taken)}
    assert left - set(NO_BUFFER.split()) == set()
    assert len(bounds) > 30


@pytest.mark.parametrize(
    "text",
    [
        "a name alone",
        "== f.py\n\nno file before\n> t",
        "== f.py\n\nneither test nor reason\n- old\n+ new",
        "no file\n- old\n+ new\n> t",
        "== f.py\n\na strange line\n- old\n* new\n> t",
    ],
)
def test_a_paragraph_that_is_no_guard_is_refused(text: str) -> None:
    """A slip in the list is told, not left out."""
    with pytest.raises(ValueError, match=r":"):
        list(guards_of(text))
