"""How the text of each kind of setting is read and written."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SecretStr

from models.outputs import parse_duration, step_name

MASK = "***"


@dataclass(frozen=True, slots=True)
class Form:
    """How the text of a setting is read, and what it accepts in words; `read` raises ValueError.

    secret: it has no flag, as a command line is open to every user of the machine, and is never shown.
    """

    accepts: str
    read: Callable[[str], Any]
    secret: bool = False


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
File = Annotated[Path | None, Form("the path of a file", Path)]
Secret = Annotated[SecretStr | None, Form("a secret: in the environment or .env only", SecretStr, secret=True)]
Port = Annotated[int, Form("a port, 0 to 65535; 0 = off", int), Field(ge=0, le=65_535)]


def written(value: Any, *, duration: bool = False) -> str:
    """The text that reads back as the value."""
    match value:
        case None:
            return ""
        case bool():
            return "on" if value else "off"
        case SecretStr():
            return value.get_secret_value()
        case tuple():
            return ",".join(name for name, _ in value)
        case int() if duration:
            return step_name(value) if value else "0"
        case _:
            return str(value)


def mask(text: str) -> str:
    """The text with what may be a password hidden: all between a URL's user and its host, and its query.

    Also where the password's own signs (/ ? # @) make it no URL.

    >>> mask("redis://:secret@cache:6379/0")
    'redis://:***@cache:6379/0'
    """
    scheme = "".join(re.findall(r"^[a-z]+://", text))
    login, at, place = text.removeprefix(scheme).rpartition("@")
    user, colon, _ = login.partition(":")
    address, question, query = place.partition("?")
    hidden = f"{user}{colon}{MASK if colon else ''}{at}{address}{question}"
    return scheme + hidden + "&".join(map(_masked_option, query.split("&")))


def _masked_option(option: str) -> str:
    name, equals, _ = option.partition("=")
    return f"{name}={MASK}" if equals and "password" in name else option
