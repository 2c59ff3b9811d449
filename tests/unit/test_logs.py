"""No line of a worker's log tells what an error quotes."""

import json
import logging
import sys
from logging.config import dictConfig
from typing import Any

import pytest

from streams.errors import StoreUnavailable
from streams.transport.logs import (
    BURST,
    TROUBLE_BURST,
    TROUBLE_WINDOW_S,
    WINDOW_S,
    DiscreetFormatter,
    JsonFormatter,
    Thinning,
    logging_config,
    rendered,
)

SECRET = "c-4711 of Hamburg"


def failing() -> None:
    try:
        {"": 0}.pop(SECRET)
    except KeyError as error:
        raise ValueError(f"bad customer {SECRET}") from error


def logged(formatter: logging.Formatter, message: str, *values: Any) -> str:
    """The line of a message that came with the error of the moment."""
    return formatter.format(logging.LogRecord("asyncio", logging.ERROR, "f", 1, message, values, sys.exc_info()))


@pytest.mark.parametrize("formatter", [DiscreetFormatter("%(levelname)s %(message)s"), JsonFormatter()])
def test_errors_are_told_by_kind_and_place_alone(formatter: logging.Formatter) -> None:
    """Neither the traceback nor a message that quotes the error holds its text; where it happened is there."""
    try:
        failing()
    except ValueError as error:
        line = logged(formatter, "never retrieved: %r, that is: %s", error, error)
    assert SECRET not in line
    assert "never retrieved: ValueError, that is: ValueError" in line
    assert line.index("KeyError") < line.rindex("ValueError")
    assert "in failing" in line


def test_errors_of_ours_and_of_the_network_keep_their_text() -> None:
    """They say what a person should do, and are written without customers in them."""
    try:
        try:
            raise ConnectionRefusedError(111, "refused at 127.0.0.1:6379")
        except OSError as error:
            raise StoreUnavailable("Redis does not serve") from error
    except StoreUnavailable as error:
        line = json.loads(logged(JsonFormatter(), "waiting: %s", error))
    assert line["message"] == "waiting: Redis does not serve"
    assert "refused at 127.0.0.1:6379" in line["traceback"]
    assert line["traceback"].endswith("StoreUnavailable: Redis does not serve")


def at(seconds: float, name: str, level: int, message: str, *values: Any) -> logging.LogRecord:
    record = logging.LogRecord(name, level, "f", 1, message, values, None)
    record.created = 1_700_000_000 + seconds
    return record


@pytest.mark.parametrize(
    ("name", "level", "window_s", "written"),
    [
        ("aiokafka.conn", logging.ERROR, TROUBLE_WINDOW_S, 1),
        ("streams.transport.group", logging.WARNING, TROUBLE_WINDOW_S, TROUBLE_BURST),
        ("streams.transport.group", logging.INFO, WINDOW_S, BURST),
    ],
)
def test_what_repeats_itself_is_thinned_and_counted(name: str, level: int, window_s: float, written: int) -> None:
    """One kind of message, whatever its values, is written a few times in a while; the next one tells of the others."""
    thinning, before = Thinning(), Thinning.held_back
    shown = [thinning.filter(at(0.01 * number, name, level, "cannot connect to %d", number)) for number in range(500)]
    assert shown == [True] * written + [False] * (500 - written)
    assert Thinning.held_back - before == 500 - written
    later = at(window_s, name, level, "cannot connect to %d", 7)
    assert thinning.filter(later)
    assert later.getMessage() == f"cannot connect to 7 (and {500 - written} times before, not shown)"
    assert thinning.filter(at(window_s, name, level, "another kind"))
    assert all(thinning.filter(at(0, name, logging.DEBUG, "detail")) for _ in range(100))


def test_kafka_s_clients_never_write_what_they_send() -> None:
    """At DEBUG aiokafka logs whole requests and responses, customers included."""
    loggers = {name: logging.getLogger(name).level for name in ("", "streams", "faust", "mode", "asyncio")}
    handlers = logging.getLogger().handlers[:]
    try:
        dictConfig(logging_config("DEBUG", "json"))
        assert logging.getLogger("streams.x").isEnabledFor(logging.DEBUG)
        for name in ("aiokafka.conn", "aiokafka.producer.producer", "kafka.protocol"):
            assert not logging.getLogger(name).isEnabledFor(logging.DEBUG)
    finally:
        logging.getLogger().handlers[:] = handlers
        for name, level in (loggers | {"aiokafka": 0, "kafka": 0}).items():
            logging.getLogger(name).setLevel(level)


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_line_written_past_the_log_looks_like_its_others(form: str) -> None:
    """The last words of a worker that hangs: one JSON object where the log is of these."""
    handlers = logging.getLogger().handlers[:]
    try:
        dictConfig(logging_config("INFO", form))
        line = rendered(logging.CRITICAL, "cut off")
    finally:
        logging.getLogger().handlers[:] = handlers
    assert line.endswith("\n")
    assert line.count("\n") == 1
    assert "cut off" in (json.loads(line)["message"] if form == "json" else line)
