"""How a worker logs: its own messages at the level asked for, those of Faust and aiokafka from WARNING on.

No line tells what a customer's event held. So aiokafka and kafka-python never log below INFO (at DEBUG they write whole
requests and responses), and of an error that is not raised on purpose only kind and place are told: its text may quote
what it failed on, as KeyError's does. Nor does an outage flood the log: a message that repeats itself is thinned.
"""

import json
import logging
from collections.abc import Iterator
from traceback import format_tb
from types import TracebackType
from typing import Any, ClassVar

from streams.errors import PulselineError

NOISY = ("faust", "mode", "asyncio")
INDISCREET = ("aiokafka", "kafka")
TOLD_WHOLE = (PulselineError, OSError)
WINDOW_S, BURST = 10.0, 20
"""At most BURST messages of a kind in WINDOW_S."""
TROUBLE_WINDOW_S, TROUBLE_BURST = 60.0, 4
"""The same of warnings and errors; of Kafka's clients one, for they log each of their attempts to connect."""
KINDS_MAX = 1_000
CAUSED = "\n\nThe above exception was the direct cause of the following exception:\n\n"

_ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


class DiscreetFormatter(logging.Formatter):
    """Lines for people; an error's text is left out unless it is ours."""

    def formatException(self, ei: _ExcInfo) -> str:  # noqa: N802 - the name is logging's
        """The traceback of the error and of what caused it."""
        return CAUSED.join(map(_told, reversed([*_chain(ei[1])])))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """The line before the traceback."""
        record.message = discreet(record)
        return super().formatMessage(record)


class JsonFormatter(DiscreetFormatter):
    """One JSON object a line: time (epoch ms), level, logger, pid, message, and the traceback where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time_ms": int(record.created * 1_000),
            "level": record.levelname,
            "logger": record.name,
            "pid": record.process,
            "message": discreet(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class Thinning(logging.Filter):
    """Leaves out what repeats itself; the next message of its kind tells how often."""

    held_back: ClassVar[int] = 0
    """Messages left out by this process so far."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}
        """Logger and text before its values are put in -> (begin of the window, messages in it)."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is written."""
        if record.levelno < logging.INFO:
            return True
        window_s, limit = _limit(record)
        kind = (record.name, str(record.msg))
        begun_s, count = self._seen.get(kind, (0.0, 0))
        if 0 <= record.created - begun_s < window_s:
            self._seen[kind] = (begun_s, count + 1)
            Thinning.held_back += count >= limit
            return count < limit
        if len(self._seen) >= KINDS_MAX:
            self._seen.clear()
        self._seen[kind] = (record.created, 1)
        if count > limit:
            record.msg, record.args = f"{record.getMessage()} (and {count - limit} times before, not shown)", None
        return True


def _limit(record: logging.LogRecord) -> tuple[float, int]:
    """(window in s, messages of this kind in it)."""
    if record.name.partition(".")[0] in INDISCREET:
        return TROUBLE_WINDOW_S, 1
    return (TROUBLE_WINDOW_S, TROUBLE_BURST) if record.levelno >= logging.WARNING else (WINDOW_S, BURST)


def rendered(level: int, message: str) -> str:
    """A line as the log has it, for where logging itself may hang or has ended."""
    handlers = logging.getLogger().handlers
    form = handlers[0].formatter if handlers else None
    record = logging.LogRecord("streams.worker", level, __file__, 0, message, None, None)
    return (form or logging.Formatter()).format(record) + "\n"


def discreet(record: logging.LogRecord) -> str:
    """The record's message, without the text of the error that came with it."""
    message = record.getMessage()
    for error in _chain(record.exc_info[1] if record.exc_info else None):
        for text in (repr(error), str(error)):
            if text and not isinstance(error, TOLD_WHOLE):
                message = message.replace(text, type(error).__qualname__)
    return message


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and what it came of."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _told(error: BaseException) -> str:
    frames = "".join(format_tb(error.__traceback__))
    text = f": {error}" if isinstance(error, TOLD_WHOLE) else ""
    return f"Traceback (most recent call last):\n{frames}{type(error).__qualname__}{text}"


def logging_config(level: str, form: str) -> dict[str, Any]:
    """Return the configuration for logging.config.dictConfig; form: console or json."""
    quieter = level if level == "DEBUG" else "WARNING"
    levels = dict.fromkeys(NOISY, quieter) | dict.fromkeys(INDISCREET, "INFO" if level == "DEBUG" else "WARNING")
    line = "%(asctime)s %(levelname)-8s %(process)d %(name)s: %(message)s"
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "console": {"()": f"{__name__}.{DiscreetFormatter.__name__}", "fmt": line},
            "json": {"()": f"{__name__}.{JsonFormatter.__name__}"},
        },
        "filters": {"thinning": {"()": f"{__name__}.{Thinning.__name__}"}},
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "formatter": form,
                "filters": ["thinning"],
                "stream": "ext://sys.stderr",
            }
        },
        "loggers": {name: {"level": of} for name, of in levels.items()} | {"streams": {"level": level}},
        "root": {"handlers": ["stderr"], "level": quieter},
    }
