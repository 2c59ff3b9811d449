"""How the text of each kind of setting is read and written."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlsplit, urlunsplit

from pydantic import Field

UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
MASK = "***"


@dataclass(frozen=True, slots=True)
class Form:
    """How the text of a setting is read, and what it accepts in words; `read` raises ValueError."""

    accepts: str
    read: Callable[[str], Any]


def duration_ms(text: str) -> int:
    """Read "15m", "500ms", "30d" or a bare number of milliseconds as ms.

    >>> duration_ms("15m"), duration_ms("500")
    (900000, 500)
    """
    match = re.fullmatch(r"(\d{1,15}) ?(ms|s|m|h|d)?", text.strip())
    if match is None:
        raise ValueError(text)
    return int(match[1]) * UNITS_MS[match[2] or "ms"]


def duration_name(ms: int) -> str:
    """Name a duration by the largest of h, m, s, ms that divides it.

    >>> duration_name(86_400_000), duration_name(60_000), duration_name(90_000)
    ('24h', '1m', '90s')
    """
    unit = next(unit for unit in ("h", "m", "s", "ms") if ms % UNITS_MS[unit] == 0)
    return f"{ms // UNITS_MS[unit]}{unit}"


def _steps(text: str) -> tuple[tuple[str, int], ...]:
    waits_ms = [duration_ms(part) for part in text.split(",")]
    if min(waits_ms) < 1:
        raise ValueError(text)
    return tuple((duration_name(ms), ms) for ms in waits_ms)


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
_NAME = Form("1 to 100 letters, digits, '.', '_' or '-'", _matching(r"[A-Za-z0-9._-]{1,100}"))
_HOST = r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:]+\]):\d{1,5}"
BROKERS = Form("host:port, or several separated by commas", _matching(rf"{_HOST}(,{_HOST})*"))
REDIS = Form("redis://[user:password@]host:port/db, rediss://... or unix:///path", _matching(r"(rediss?|unix)://\S+"))
STEPS = Form("durations of more than 0, strictly increasing, separated by commas: 15m,1h,24h", _steps)

Duration = Annotated[int, Form(_DURATION, duration_ms), Field(ge=0)]
SomeTime = Annotated[int, Form(_DURATION + ", more than 0", duration_ms), Field(gt=0)]
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
            return duration_name(value) if value else "0"
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
