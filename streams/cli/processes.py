"""The demo's workers: a process of their own, and always stopped."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from streams.cli.progress import Waiting
from streams.settings import Settings

STOP_S = 15.0
WORKER = ("-m", "streams.cli", "worker")


@contextlib.contextmanager
def workers(settings: Settings, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`pulseline worker` in a process of its own, stopped at the end; what it says goes to `log`."""
    environ = {name: text for name, text in os.environ.items() if not name.startswith("PULSELINE_")}
    pid_file = log.with_suffix(".pid")
    with log.open("wb") as out:
        # A session of its own: Ctrl-C is for us, who stop it in order.
        process = subprocess.Popen(
            [sys.executable, *WORKER],
            env=environ | settings.environ(),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        pid_file.write_text(str(process.pid))
        try:
            yield process
        finally:
            stop(process)
            pid_file.unlink()


def end_leftover(pid_file: Path) -> None:
    """Stop the workers of a demo that was killed before it could: they would work on what we delete."""
    if not pid_file.exists():
        return
    pid = pid_file.read_text()
    shown = subprocess.run(["ps", "-o", "command=", "-p", pid], capture_output=True, text=True, check=False).stdout
    if " ".join(WORKER) not in shown:
        return
    os.kill(int(pid), signal.SIGTERM)
    with Waiting("waiting until the workers of the last demo are gone") as waiting:
        while subprocess.run(["ps", "-p", pid], capture_output=True, check=False).returncode == 0:
            waiting.tick()
            time.sleep(0.2)


def stop(process: subprocess.Popen[bytes]) -> int:
    """Stop a process by its pid, at last by force; return its exit code."""
    if process.poll() is None:
        process.terminate()
    try:
        return process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
