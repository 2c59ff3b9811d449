"""Runs pytest again and again in forks of one process, which has imported what no guard can be in.

`python -m tests.mutation.zygote`, in the folder of a tree: each line of its input is a JSON list of pytest's arguments,
each line of its output [exit code, what pytest said]. A fork imports the tested code anew; the imports that all forks
share take two thirds of the time of a small test.
"""

import importlib
import json
import os
import signal
import sys
import tempfile
from time import monotonic, sleep
from typing import IO

SHARED = ("asyncio", "pytest", "hypothesis.strategies", "pydantic", "msgspec", "xxhash", "redis.asyncio", "tomllib")
LIMIT_S = 300
TURN_S = 0.01
NO_END = -1


def run(arguments: list[str]) -> tuple[int, str]:
    """Run pytest in a fork: its exit code (NO_END: none within LIMIT_S) and the end of what it said."""
    with tempfile.TemporaryFile("w+") as said:
        child = os.fork()
        if child == 0:
            _become_pytest(arguments, said)
        code = _end_of(child)
        said.seek(0)
        return code, said.read()[-2_000:]


def _become_pytest(arguments: list[str], said: IO[str]) -> None:
    code = 1
    try:
        os.setpgid(0, 0)
        for stream in (1, 2):
            os.dup2(said.fileno(), stream)
        import pytest

        code = int(pytest.main(arguments))
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _end_of(child: int) -> int:
    deadline = monotonic() + LIMIT_S
    while monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        sleep(TURN_S)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return NO_END


def main() -> None:
    """Answer one request after the other until the input ends."""
    for name in SHARED:
        importlib.import_module(name)
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
