"""The engagement score: what each event type weighs, how fast it fades, and how the channels add up to 100 points."""

import re
import tomllib
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from math import exp, floor, isfinite
from typing import Any, Final, NamedTuple

from streams.engagement.decay import HOUR_MS, DecayedSum
from streams.engagement.kinds import CHANNELS, KINDS
from streams.errors import InvalidSettings

WEIGHT_MAX: Final = 1_000
HALF_LIFE_HOURS_MAX: Final = 24 * 365
UNWEIGHED_OF_MACHINES: Final = frozenset({"email_opened", "email_link_clicked"})
"""Opened or clicked by a proxy: no engagement."""


class Channel(NamedTuple):
    """One channel of the model: cap in points, half_life_ms, and k, the points at which 63 % of the cap are reached."""

    cap: float
    half_life_ms: int
    k: float


@dataclass(slots=True)
class Score:
    """A score in hundredths of a point, whole and by channel; raw: the decayed sums behind it, in points."""

    hundredths: int
    contributions: dict[str, int]
    raw: dict[str, float]


class ScoreModel:
    """Weights, half-lives and caps, read from a TOML file.

    version: the file's name and the first 8 hex digits of its content's SHA-256, "default-1a2b3c4d";
    weights: event type -> (channel index, half_life_ms, weight), of the types that weigh anything.
    """

    __slots__ = ("_named", "channels", "version", "weights")

    def __init__(self, version: str, channels: tuple[Channel, ...], weights: dict[str, tuple[int, int, float]]) -> None:
        self.version = version
        self.channels = channels
        self._named = [(name, *channel) for name, channel in zip(CHANNELS, channels, strict=True)]
        self.weights = weights

    @classmethod
    def from_toml(cls, content: bytes, name: str) -> "ScoreModel":
        """Read a model; `name` is the file's name without its ending. InvalidSettings says what is wrong and where."""
        try:
            tables = tomllib.loads(content.decode())
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise InvalidSettings(f"score model {name}: not TOML: {error}") from error
        _expect_keys(f"score model {name}", tables, CHANNELS)
        channels, weights = [], {}
        for index, channel_name in enumerate(CHANNELS):
            where = f"score model {name}, [{channel_name}]"
            channel = _channel(where, tables[channel_name])
            channels.append(channel)
            for event_type, weight in _weights(where, index, tables[channel_name]["weights"]).items():
                weights[event_type] = (index, channel.half_life_ms, weight)
        return cls(f"{name}-{sha256(content).hexdigest()[:8]}", tuple(channels), weights)

    @classmethod
    def default(cls) -> "ScoreModel":
        """The model that ships with Pulseline."""
        return cls.from_toml(files(__package__).joinpath("score_model.toml").read_bytes(), "default")

    def score(self, sums: list[DecayedSum | None], at_ms: int) -> Score:
        """The score as of `at_ms`. sums: one per channel, None or of another half-life: nothing."""
        contributions, raw, total = {}, {}, 0
        for (name, cap, half_life_ms, k), channel in zip(self._named, sums):  # noqa: B905 - one a channel, and hot
            hundredths, value = 0, 0.0
            if channel is not None and channel.half_life_ms == half_life_ms:
                value = channel.value(at_ms)
                if value > 0:
                    hundredths = floor(100 * (cap * (1 - exp(-value / k))) + 0.5)
                    total += hundredths
            contributions[name], raw[name] = hundredths, value
        return Score(total, contributions, raw)


def _expect_keys(where: str, table: Any, keys: tuple[str, ...]) -> None:
    if not isinstance(table, dict):
        raise InvalidSettings(f"{where}: must be a table")
    for missing in (key for key in keys if key not in table):
        raise InvalidSettings(f"{where}: {missing} is missing")
    for unknown in (key for key in table if key not in keys):
        raise InvalidSettings(f"{where}: {unknown} is unknown; known are {', '.join(keys)}")


def _channel(where: str, table: Any) -> Channel:
    _expect_keys(where, table, ("cap", "half_life", "k", "weights"))
    cap, k = (_number(where, key, table[key]) for key in ("cap", "k"))
    if not 0 <= cap <= 100:
        raise InvalidSettings(f"{where}: cap must be from 0 to 100, not {cap}")
    if k <= 0:
        raise InvalidSettings(f"{where}: k must be greater than 0, not {k}")
    half_life = re.fullmatch(r"([1-9][0-9]{0,5})([hd])", str(table["half_life"]))
    hours = int(half_life[1]) * (24 if half_life[2] == "d" else 1) if half_life else 0
    if not 1 <= hours <= HALF_LIFE_HOURS_MAX:
        raise InvalidSettings(
            f"{where}: half_life must be whole hours or days up to a year, such as 36h or 7d, not {table['half_life']}"
        )
    return Channel(cap, hours * HOUR_MS, k)


def _weights(where: str, channel: int, table: Any) -> dict[str, float]:
    types = tuple(name for name, kind in KINDS.items() if kind.topic == channel)
    if not isinstance(table, dict):
        raise InvalidSettings(f"{where}: weights must be a table")
    weights = {}
    for event_type, value in table.items():
        if event_type not in types:
            raise InvalidSettings(
                f"{where}: {event_type} is no event type of this channel; those are {', '.join(types)}"
            )
        weight = _number(where, event_type, value)
        if abs(weight) > WEIGHT_MAX:
            raise InvalidSettings(
                f"{where}: the weight of {event_type} must be from -{WEIGHT_MAX} to {WEIGHT_MAX}, not {weight}"
            )
        if weight:
            weights[event_type] = weight
    return weights


def _number(where: str, key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise InvalidSettings(f"{where}: {key} must be a number, not {value!r}")
    return value
