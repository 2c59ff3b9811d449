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
        self._child_pid: int | None = None

    def spawn(self, command: Sequence[str]) -> None:
        """Start the program in a session of its own, so that Ctrl-C in a terminal does not reach it."""
        # Not Popen: such an object complains when it is dropped while its program runs, as ours do on purpose.
        log = os.open(self.log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            self._child_pid = os.posix_spawnp(
                command[0],
                list(command),
                os.environ,
                setsid=True,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, log, 1),
                    (os.POSIX_SPAWN_DUP2, log, 2),
                ],
            )
        finally:
            os.close(log)
        self._pid_path.write_text(f"{self._child_pid}\n")

    @property
    def pid(self) -> int | None:
        """The process id while the program runs."""
        self._reap()
        if self._child_pid is not None:
            return self._child_pid
        with contextlib.suppress(OSError, ValueError):
            pid = int(self._pid_path.read_text())
            if str(self.folder) in _command_line(pid):
                return pid
        return None

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

    def _reap(self) -> None:
        """Take note of the end of our own child; until then its pid stays taken."""
        if self._child_pid is not None:
            with contextlib.suppress(ChildProcessError):
                ended, _status = os.waitpid(self._child_pid, os.WNOHANG)
                if ended == 0:
                    return
            self._child_pid = None

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
