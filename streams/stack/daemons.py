"""Server programs that outlive the command that started them, known by a pid file."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from streams.stack.waiting import POLL_S, StackProblem

LOG_TAIL_LINES = 15


class Daemon:
    """One server program with its pid file and its log in `folder`.

    Its command line must name `folder`: that tells a pid from an earlier run from a stranger that got the same number.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self.log_path = folder / f"{name}.log"
        self._pid_path = folder / f"{name}.pid"
        self._child: subprocess.Popen[bytes] | None = None

    def spawn(self, command: Sequence[str]) -> None:
        """Start the program in a session of its own, so that Ctrl-C in a terminal does not reach it."""
        with self.log_path.open("ab") as log:
            self._child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder, start_new_session=True
            )
        self._pid_path.write_text(f"{self._child.pid}\n")

    @property
    def pid(self) -> int | None:
        """The process id while the program runs."""
        if self._child is not None:
            return self._child.pid if self._child.poll() is None else None
        with contextlib.suppress(OSError, ValueError):
            pid = int(self._pid_path.read_text())
            if str(self.folder) in _command_line(pid):
                return pid
        return None

    @property
    def exit_code(self) -> int | None:
        """The exit code of a program that this process started and that has ended."""
        return self._child.poll() if self._child is not None else None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal if the program runs."""
        pid = self.pid
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self) -> None:
        """End the program at once, as a power cut would, and wait until it is gone."""
        self.signal(signal.SIGKILL)
        self._wait_gone(10)

    def stop(self, timeout_s: float = 20) -> None:
        """Ask the program to end: TERM, TERM again, KILL (a Redis in the middle of a full sync refuses the first)."""
        for number, patience_s in (
            (signal.SIGTERM, timeout_s / 2),
            (signal.SIGTERM, timeout_s / 2),
            (signal.SIGKILL, 10),
        ):
            self.signal(number)
            if self._wait_gone(patience_s):
                break
        self._pid_path.unlink(missing_ok=True)

    def tail(self, lines: int = LOG_TAIL_LINES) -> str:
        """The last lines of the log."""
        try:
            return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])
        except FileNotFoundError:
            return ""

    def ensure_running(self) -> None:
        """Raise StackProblem with the end of the log if the program has ended."""
        if self.pid is None:
            raise StackProblem(f"{self.name} ended while starting; the end of {self.log_path}:\n{self.tail()}")

    def _wait_gone(self, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while self.pid is not None:
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_S)
        return True


def _command_line(pid: int) -> str:
    """The command line of a live process; empty for a zombie or none."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except FileNotFoundError:
        if Path("/proc/self").exists():
            return ""
    listed = subprocess.run(["ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return listed.stdout
