"""Workers: `faust -A streams.worker worker` runs one, `pulseline worker --workers N` runs some side by side."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from logging.config import dictConfig
from types import FrameType
from typing import Any, NoReturn

from streams.errors import InvalidSettings
from streams.settings import Settings
from streams.transport.logs import logging_config

logger = logging.getLogger(__name__)

PARENT_POLL_S = 1.0


def __getattr__(name: str) -> Any:
    """`app`, built from the environment when it is first asked for; nothing connects before it is started."""
    if name != "app":
        raise AttributeError(name)
    from streams.app import create_app

    with _settings_refused():
        found = create_app(Settings.load())
    globals()["app"] = found
    return found


@contextmanager
def _settings_refused() -> Iterator[None]:
    """End the process with a message instead of a traceback."""
    try:
        yield
    except InvalidSettings as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(error.exit_code) from None


def run_worker(settings: Settings) -> NoReturn:
    """Run one worker in this process until it is stopped; exits with the code of what stopped it."""
    from streams.app import create_app
    from streams.transport.application import Worker

    Worker(create_app(settings), loglevel=settings.log_level, quiet=True).execute_from_commandline()


def run_workers(settings: Settings, count: int) -> int:
    """Run `count` workers and wait for them; SIGTERM and SIGINT are passed on.

    Worker n has WEB_PORT + n. A worker that dies is not replaced: the others take over its tasks, and its exit code
    is reported. Returns the first exit code that is not 0.
    """
    if count == 1:
        run_worker(settings)
    dictConfig(logging_config(settings.log_level, settings.log_format))
    children = [_start(settings, number) for number in range(count)]

    def forward(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        for child in children:
            if child.poll() is None:
                child.terminate()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, forward)
    codes = [_report(number, child) for number, child in _as_they_end(children)]
    return next((code for code in codes if code != 0), 0)


def _start(settings: Settings, number: int) -> subprocess.Popen[bytes]:
    web_port = settings.web_port + number if settings.web_port else 0
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PULSELINE_")}
    environ |= settings.model_copy(update={"web_port": web_port, "workers": 1}).environ()
    return subprocess.Popen([sys.executable, "-m", "streams.worker", str(os.getpid())], env=environ)


def _as_they_end(children: list[subprocess.Popen[bytes]]) -> Any:
    waiting = dict(enumerate(children))
    while waiting:
        for number, child in list(waiting.items()):
            if child.poll() is not None:
                yield number, waiting.pop(number)
        time.sleep(0.1)


def _report(number: int, child: subprocess.Popen[bytes]) -> int:
    code = child.returncode
    if code:
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        logger.error("worker %d (pid %d) %s", number, child.pid, how)
    return code if code >= 0 else 128 - code


def _end_with(parent: int) -> None:
    """Stop when the parent is gone, so that no worker stays behind unseen."""
    while os.getppid() == parent:
        time.sleep(PARENT_POLL_S)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        threading.Thread(target=_end_with, args=(int(sys.argv[1]),), daemon=True).start()
    with _settings_refused():
        run_worker(Settings.load())
