"""How the text of each kind of setting is read and written."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlsplit, urlunsplit

from pydantic import Field

from models.outputs import parse_duration, step_name

MASK = "***"


@dataclass(frozen=True, slots=True)
class Form:
    """How the text of a setting is read, and what it accepts in words; `read` raises ValueError."""

    accepts: str
    read: Callable[[str], Any]


def _steps(text: str) -> tuple[tuple[str, int], ...]:
    waits_ms = [parse_duration(part) for part in text.split(",")]
    if min(waits_ms) < 1:
        raise ValueError(text)
    return tuple((step_name(ms), ms) for ms in waits_ms)


def _switch(text: str) -> bool:
    known = {"on": True, "true": True, "yes": True, "1": True, "off": False, "false": False, "no": False, "0": False}
    if text.strip().lower() not in known:
        raise ValueError(text)
    return known[text.strip().lower()]


def _matching(pattern: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if re.fullmatch(pattern, text) is None:
            raise ValueError(text)
        return text

    return read


_DURATION = "a duration such as 15m, 24h, 30d or 500ms, or a number of milliseconds"
_NAME = Form(
    "1 to 100 letters, digits, '.', '_' or '-', a letter or digit first", _matching(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
)
_HOST = r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:]+\]):\d{1,5}"
BROKERS = Form("host:port, or several separated by commas", _matching(rf"{_HOST}(,{_HOST})*"))
REDIS = Form("redis://[user:password@]host:port/db, rediss://... or unix:///path", _matching(r"(rediss?|unix)://\S+"))
STEPS = Form("durations of more than 0, strictly increasing, separated by commas: 15m,1h,24h", _steps)

Duration = Annotated[int, Form(_DURATION, parse_duration), Field(ge=0)]
SomeTime = Annotated[int, Form(_DURATION + ", more than 0", parse_duration), Field(gt=0)]
Switch = Annotated[bool, Form("on or off", _switch)]
Count = Annotated[int, Form("a whole number of at least 1", int), Field(ge=1)]
Name = Annotated[str, _NAME]
Port = Annotated[int, Form("a port, 0 to 65535; 0 = off", int), Field(ge=0, le=65_535)]


def written(value: Any, *, duration: bool = False) -> str:
    """The text that reads back as the value."""
    match value:
        case None:
            return ""
        case bool():
            return "on" if value else "off"
        case tuple():
            return ",".join(name for name, _ in value)
        case int() if duration:
            return step_name(value) if value else "0"
        case _:
            return str(value)


def mask(text: str) -> str:
    """The text with the password of a URL hidden.

    >>> mask("redis://:secret@cache:6379/0")
    'redis://:***@cache:6379/0'
    """
    if "://" not in text or "@" not in text:
        return text
    parts = urlsplit(text)
    login, _, place = parts.netloc.rpartition("@")
    user = login.partition(":")[0]
    return urlunsplit(parts._replace(netloc=f"{user}:{MASK}@{place}"))
