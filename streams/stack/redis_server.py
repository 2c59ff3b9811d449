"""One Redis that keeps what it was told: append-only file, synced every second, nothing evicted."""

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import redis
from redis.exceptions import NoPermissionError, RedisError

from streams.stack.daemons import Daemon
from streams.stack.ports import LOOPBACK
from streams.stack.waiting import Say, silent, wait_until

START_TIMEOUT_S = 30


class RedisServer:
    """A Redis in `folder` on a port of 127.0.0.1; may be killed and started again on the same data."""

    def __init__(self, folder: Path, *, program: str, port: int, options: Sequence[str] = ()) -> None:
        self.folder = folder
        self.port = port
        self.daemon = Daemon("redis", folder)
        self._program = program
        self._options = options

    @property
    def url(self) -> str:
        """URL of database 0."""
        return f"redis://{LOOPBACK}:{self.port}/0"

    def start(self, say: Say = silent) -> None:
        """Start and wait until the server answers; raises StackProblem."""
        self.launch()
        self.wait_ready(say)

    def launch(self) -> None:
        """Start without waiting; nothing happens if the server runs."""
        if self.daemon.pid is not None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        self.daemon.spawn(
            [
                self._program,
                *("--bind", LOOPBACK, "--port", str(self.port), "--dir", str(self.folder)),
                *("--appendonly", "yes", "--appendfsync", "everysec", "--save", "", "--maxmemory-policy", "noeviction"),
                # No delay: the first sync of a replica starts at once. A title would hide the folder from Daemon.
                *("--repl-diskless-sync-delay", "0", "--set-proc-title", "no", "--daemonize", "no"),
                *self._options,
            ]
        )

    def wait_ready(self, say: Say = silent, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait until the data is loaded and the server answers."""
        wait_until(
            lambda: redis_answers(self.url),
            what=f"Redis at {LOOPBACK}:{self.port}",
            timeout_s=timeout_s,
            say=say,
            check=self.daemon.ensure_running,
        )

    def stop(self) -> None:
        """Shut down in order."""
        self.daemon.stop()

    def kill(self) -> None:
        """End at once, as kill -9 does."""
        self.daemon.kill()

    def pause(self) -> None:
        """Freeze the process (SIGSTOP)."""
        self.daemon.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen process go on (SIGCONT)."""
        self.daemon.signal(signal.SIGCONT)


def redis_answers(url: str, **options: Any) -> bool:
    """True when a Redis answers PING, or that its user may not, its data loaded; options: redis-py's, for security."""
    try:
        with redis.Redis.from_url(url, socket_connect_timeout=1, socket_timeout=2, **options) as client:
            return bool(client.ping())
    except NoPermissionError:
        return True
    except RedisError:
        return False
