"""Takes one guard after the other out of a copy of the tree and asks its tests."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from time import monotonic

from tests.mutation.guard import Guard

ROOT = Path(__file__).parents[2]
COPIED = ("models", "streams", "tests", "docs", "pyproject.toml")
BROKEN = {"SyntaxError", "IndentationError", "ImportError", "ModuleNotFoundError", "NameError", "UnboundLocalError"} | {
    "AttributeError",
    "TypeError",
}
"""Errors that tell of a clumsy removal, not of a test that judges."""
SHARED_MODULES = "ignore::pytest.PytestAssertRewriteWarning"
"""What the zygote has imported is not imported again, and pytest would say so."""
ASKED = ("-q", "-p", "tests.mutation.witness", "--no-header", "--tb=line", "-m", "not chaos_long and not bench")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a guard's removal. red: the test that noticed, None where none did, or not by an assertion."""

    guard: Guard
    red: str | None
    how: str
    seconds: float


class Tree:
    """A copy of the sources, with at most one guard gone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in COPIED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
            else:
                shutil.copy2(ROOT / name, folder / name)
        tools = ROOT / ".pulseline" / "tools"
        if tools.exists():
            (folder / ".pulseline").mkdir()
            (folder / ".pulseline" / "tools").symlink_to(tools.resolve())
        self._zygote = subprocess.Popen(
            [sys.executable, "-m", "tests.mutation.zygote"],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": ""},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @contextmanager
    def without(self, guard: Guard) -> Iterator[None]:
        """The tree without the guard."""
        file = self.folder / guard.file
        whole = file.read_text()
        if whole.count(guard.old) != 1:
            raise ValueError(f"{guard.name}: its text occurs {whole.count(guard.old)} times in {guard.file}")
        try:
            self._put(file, whole.replace(guard.old, guard.new))
            yield
        finally:
            self._put(file, whole)

    def _put(self, file: Path, text: str) -> None:
        file.write_text(text)
        for compiled in (file.parent / "__pycache__").glob(f"{file.stem}.*.pyc"):
            compiled.unlink()  # one of the same size and second would be taken for it

    def ask(self, tests: Sequence[str], *, first_only: bool = True) -> tuple[int, list[list[str]], str]:
        """Run tests: pytest's exit code, its failures as [node id, phase, error], and the end of what it said."""
        told = self.folder / "witness.json"
        told.unlink(missing_ok=True)
        asked, answered = self._zygote.stdin, self._zygote.stdout
        assert asked is not None
        assert answered is not None
        asked.write(
            json.dumps([*ASKED, "-W", SHARED_MODULES, "--witness", str(told), *(["-x"] if first_only else []), *tests])
            + "\n"
        )
        asked.flush()
        code, said = json.loads(answered.readline())
        return code, json.loads(told.read_text()) if told.exists() else [], said

    def close(self) -> None:
        """End the process that runs the tests."""
        self._zygote.communicate()


@contextmanager
def tree() -> Iterator[Tree]:
    """A copy that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="pulseline-mutation-") as folder:
        made = Tree(Path(folder).resolve())
        try:
            yield made
        finally:
            made.close()


def judge(there: Tree, guard: Guard) -> Verdict:
    """Take one guard out and ask its tests."""
    begun = monotonic()
    with there.without(guard):
        code, failures, said = there.ask(guard.tests)
    seconds = monotonic() - begun
    if code == 0:
        return Verdict(guard, None, "survived", seconds)
    if not failures:
        return Verdict(guard, None, f"broken: {said.strip().splitlines()[-1] if said.strip() else code}", seconds)
    node, phase, error = failures[0]
    if phase != "call" or error in BROKEN or error == "Timeout":
        return Verdict(guard, None, f"broken: {error} at {phase} of {node}", seconds)
    return Verdict(guard, node, error, seconds)


def all_green(there: Tree, guards: Iterable[Guard]) -> str:
    """What is wrong with the tests while every guard is there; empty: nothing."""
    tests = sorted({test for guard in guards for test in guard.tests})
    code, failures, said = there.ask(tests, first_only=False)
    return "" if code == 0 else f"{failures or said}"


def judged(guards: Sequence[Guard], workers: int, tell: Callable[[Verdict], None]) -> list[Verdict]:
    """The verdict on every guard, in order; each worker has a copy of its own."""
    with ExitStack() as stack, ThreadPoolExecutor(workers) as pool:
        free: SimpleQueue[Tree] = SimpleQueue()
        for _ in range(workers):
            free.put(stack.enter_context(tree()))

        def one(guard: Guard) -> Verdict:
            there = free.get()
            try:
                verdict = judge(there, guard)
            finally:
                free.put(there)
            tell(verdict)
            return verdict

        return list(pool.map(one, guards))
