"""`make mutation`: take each guard out in turn; a test must turn red. Prints a table, ends with 1 where one did not.

`python -m tests.mutation WORDS` takes those alone whose name or file holds one of the words; `--find` asks every cheap
suite instead of the tests the list names, and tells all that turn red: for whoever adds a guard.
"""

import argparse
import sys
from collections.abc import Sequence
from time import monotonic

from tests.mutation.guard import Guard, every_guard
from tests.mutation.run import Verdict, all_green, judged, tree

CHEAP = ("tests/unit", "tests/property", "tests/simulation/test_regressions.py", "tests/simulation/test_races.py")


def main() -> int:
    """Judge the guards asked for; the exit code."""
    parser = argparse.ArgumentParser(prog="make mutation", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("words", nargs="*", help="take guards whose name or file holds one of these")
    parser.add_argument("--workers", type=int, default=2, help="how many copies of the tree work at once (2)")
    parser.add_argument("--find", action="store_true", help="tell every cheap test that turns red")
    asked = parser.parse_args()
    guards = [
        guard
        for guard in every_guard()
        if not guard.equivalent and (not asked.words or any(word in guard.name + guard.file for word in asked.words))
    ]
    if not guards:
        parser.error("no guard holds one of these words")
    return find(guards) if asked.find else judge(guards, asked.workers)


def judge(guards: Sequence[Guard], workers: int) -> int:
    """Print the table of the guards; 1 where one is not noticed."""
    begun = monotonic()
    with tree() as there:
        wrong = all_green(there, guards)
    if wrong:
        print(f"the tests are red with every guard in its place: {wrong}", file=sys.stderr)
        return 1
    print(f"{len(guards)} guards; their tests are green while all are there ({monotonic() - begun:.0f} s)", flush=True)
    done = 0

    def tell(verdict: Verdict) -> None:
        nonlocal done
        done += 1
        if verdict.red is None:
            print(f"  {verdict.guard.name}: {verdict.how}", flush=True)
        elif done % 50 == 0:
            print(f"  {done} of {len(guards)}, {monotonic() - begun:.0f} s", flush=True)

    verdicts = judged(guards, workers, tell)
    width = max(len(guard.name) for guard in guards)
    for verdict in verdicts:
        told = verdict.red or verdict.how.upper()
        print(f"{verdict.guard.name:{width}}  {verdict.guard.file}  {told}  {verdict.seconds:.1f} s")
    left = sum(verdict.red is None for verdict in verdicts)
    print(f"{len(guards)} guards, {len(guards) - left} noticed, {left} not, {monotonic() - begun:.0f} s")
    return 1 if left else 0


def find(guards: Sequence[Guard]) -> int:
    """Print every cheap test that notices each guard."""
    with tree() as there:
        for guard in guards:
            with there.without(guard):
                _, failures, said = there.ask(CHEAP, first_only=False)
            print(f"{guard.name} ({guard.file}):")
            for node, phase, error in failures:
                print(f"  {node} ({phase}: {error})")
            if not failures:
                print(f"  {said.strip().splitlines()[-1]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
