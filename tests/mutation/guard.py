"""A guard as data: the words of the shipped code that are it, what stands there once it is gone, and who notices.

The lists in `guards/` are read like a diff, one guard a paragraph, below the file that it stands in:

    == streams/processing/claims.py

    StateLost
    - if any(offset is not None for offset in committed.values()) and not self.plan.rebuild:
    + if False:
    > tests/unit/test_processor.py::test_offsets_without_state_stop_the_worker

The lines after `-` stand in the file just once; those after `+` take their place; after `>` stands a test that turns
red then, the cheapest first. After `=` stands instead why nobody can notice.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LISTS = Path(__file__).parent / "guards"


@dataclass(frozen=True, slots=True)
class Guard:
    """One guard. file: below the root of the repository; old occurs in it exactly once; new takes its place.

    tests: node ids of pytest; equivalent: why the code does the same without it, where it does.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    equivalent: str = ""


def guards_of(text: str) -> Iterator[Guard]:
    """The guards of one list; ValueError where a paragraph is none."""
    file = ""
    for paragraph in text.strip().split("\n\n"):
        first, *lines = paragraph.splitlines()
        if first.startswith("== "):
            file, lines = first[3:], lines or []
            if not lines:
                continue
            raise ValueError(f"{first}: a blank line must follow")
        marked: dict[str, list[str]] = {"-": [], "+": [], ">": [], "=": []}
        for line in lines:
            if line[:1] not in marked or line[1:2] not in {" ", ""}:
                raise ValueError(f"{first}: a line that is none of a guard: {line}")
            marked[line[0]].append(line[2:])
        if not file or not marked["-"] or not (marked[">"] or marked["="]):
            raise ValueError(f"{first}: no guard")
        old, new = "\n".join(marked["-"]), "\n".join(marked["+"])
        yield Guard(first, file, old, new, tuple(marked[">"]), " ".join(marked["="]))


def every_guard() -> list[Guard]:
    """All guards, in the order of the lists' names."""
    return [guard for path in sorted(LISTS.glob("*.txt")) for guard in guards_of(path.read_text())]
