"""The record of all settings, and what they must agree on."""

import os
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, get_args

from pydantic import ConfigDict, Field, SecretStr, ValidationError, model_validator

from models.outputs import step_name
from models.topics import topic_name
from streams.errors import InvalidSettings
from streams.settings.connections import Connections
from streams.settings.forms import (
    MASK,
    STEPS,
    Count,
    Duration,
    Form,
    Name,
    Port,
    SomeTime,
    Switch,
    mask,
    written,
)
from streams.settings.sources import PREFIX, gather, read_dotenv

if TYPE_CHECKING:
    from streams.engagement.cart import CartPolicy
    from streams.engagement.profile import Rules


class Settings(Connections):
    """All settings; a duration's attribute ends in `_ms`, its name does not: `lateness_ms`, `PULSELINE_LATENESS`."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    app_id: Name = Field("pulseline", description="consumer group and prefix of every Redis key")
    topic_prefix: Name = Field("engagement", description="first part of every topic's name")
    partitions: Annotated[int, Form("a whole number from 1 to 4096", int), Field(ge=1, le=4_096)] = Field(
        16, description="partitions of every input topic, and so the number of tasks; cannot grow online"
    )
    cart_steps: Annotated[tuple[tuple[str, int], ...], STEPS] = Field(
        (("15m", 900_000), ("1h", 3_600_000), ("24h", 86_400_000)), description="idle times after which a cart triggers"
    )
    cart_expiry_ms: SomeTime = Field(30 * 86_400_000, description="idle time after which a cart expires")
    order_scope: Literal["customer", "cart"] = Field("customer", description="which carts an order closes")
    recovery_window_ms: SomeTime = Field(
        7 * 86_400_000, description="an order this soon after the first due step counts as recovered"
    )
    trigger_max_staleness_ms: Duration = Field(6 * 3_600_000, description="older due steps are suppressed; 0 = off")
    trigger_cooldown_ms: Duration = Field(0, description="least time between two triggers of a customer; 0 = off")
    min_cart_value_minor: Annotated[int, Form("an amount in minor units, 0 to 10^12", int), Field(ge=0, le=10**12)] = (
        Field(0, description="carts worth less are suppressed")
    )
    lateness_ms: Duration = Field(
        10_000, description="how far out of order events may arrive and still be in time; all topics"
    )
    punctuation: Switch = Field(
        True, description="write the passing of silent time into the log; off while history is loaded"
    )
    score_model: Annotated[Path | None, Form("the path of a TOML file", Path)] = Field(
        None, description="weights of the score; default: built in"
    )
    score_min_delta: Annotated[float, Form("points, 0 to 100", float), Field(ge=0, le=100, allow_inf_nan=False)] = (
        Field(0.5, description="a score is published again when it moved by this much")
    )
    metrics_interval_ms: SomeTime = Field(5_000, description="how often live metrics are published")
    commit_interval_ms: SomeTime = Field(
        500, description="how often state, outputs and offsets are committed; 1s with exactly_once"
    )
    processing_guarantee: Literal["at_least_once", "exactly_once"] = Field(
        "at_least_once", description="what Kafka readers may see twice"
    )
    topic_timestamps: Literal["LogAppendTime", "CreateTime"] = Field(
        "LogAppendTime", description="timestamps of input topics we create"
    )
    web_host: str = Field("127.0.0.1", min_length=1, description="address that health checks and counters listen on")
    web_port: Port = Field(8080, description="port of health checks and counters, plus the worker's number; 0 = off")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="least severe message logged")
    log_format: Literal["console", "json"] = Field("console", description="how messages are written")

    # What the stack needs besides.
    workers: Count = Field(1, description="worker processes on this machine")
    rebuild: Switch = Field(False, description="start from the log's beginning where Redis lost its state")
    on_gap: Literal["stop", "continue"] = Field(
        "stop", description="what to do where the log no longer reaches back to the state"
    )
    session_timeout_ms: SomeTime = Field(10_000, description="a silent worker's tasks go to others after this")
    max_poll_interval_ms: SomeTime = Field(
        300_000, description="a worker that fetched nothing for so long leaves the group"
    )
    request_timeout_ms: SomeTime = Field(30_000, description="longest wait for an answer of Kafka")
    redis_timeout_ms: SomeTime = Field(5_000, description="longest wait for an answer of Redis")
    shutdown_timeout_ms: SomeTime = Field(8_000, description="longest wait for the last commit when stopping")
    dirty_customers_max: Count = Field(4_000, description="commit early when so many customers changed")
    dirty_bytes_max: Count = Field(4_000_000, description="commit early when about so many bytes changed")
    profiles_max: Count = Field(100_000, description="profiles kept in memory by a worker")
    run_records_max: Count = Field(2_000, description="records handed to an agent at once")
    buffer_runs_max: Count = Field(16, description="runs waiting for an agent before fetching pauses")
    fast_fetch: Switch = Field(
        True, description="take records from aiokafka as they are (checked at start; falls back by itself)"
    )
    failpoint: Annotated[str | None, Form("the name of a failpoint", str)] = Field(
        None, description="for tests: die at this step of a commit"
    )
    stack_dir: Annotated[Path, Form("the path of a folder", Path)] = Field(
        Path(".pulseline"), description="programs and data of the local stack"
    )

    @model_validator(mode="before")
    @classmethod
    def _slower_commits_with_transactions(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("processing_guarantee") == "exactly_once":
            return {"commit_interval_ms": 1_000} | given
        return given

    @model_validator(mode="after")
    def _agree(self) -> Self:
        for contradiction in self._contradictions():
            raise InvalidSettings(contradiction)
        return self

    def _contradictions(self) -> Iterator[str]:
        yield from self.disagreements()
        waits_ms = [ms for _, ms in self.cart_steps]
        if not waits_ms or any(later <= earlier for earlier, later in pairwise(waits_ms)):
            yield f"{PREFIX}CART_STEPS must be strictly increasing and not empty: {written(self.cart_steps)}."
        elif waits_ms[-1] > self.cart_expiry_ms:
            yield (
                f"The last of {PREFIX}CART_STEPS ({self.cart_steps[-1][0]}) is longer than {PREFIX}CART_EXPIRY "
                f"({step_name(self.cart_expiry_ms)})."
            )
        elif self.lateness_ms * 3 > waits_ms[0]:
            yield (
                f"{PREFIX}LATENESS ({step_name(self.lateness_ms)}) is more than a third of the first of "
                f"{PREFIX}CART_STEPS ({self.cart_steps[0][0]})."
            )
        if self.commit_interval_ms * 5 > self.max_poll_interval_ms:
            yield (
                f"{PREFIX}COMMIT_INTERVAL ({step_name(self.commit_interval_ms)}) is more than a fifth of "
                f"{PREFIX}MAX_POLL_INTERVAL ({step_name(self.max_poll_interval_ms)})."
            )
        if self.partitions < self.workers:
            yield f"{PREFIX}PARTITIONS ({self.partitions}) is less than {PREFIX}WORKERS ({self.workers})."
        if self.processing_guarantee == "exactly_once" and self.commit_interval_ms < 1_000:
            yield f"{PREFIX}COMMIT_INTERVAL must be at least 1s with {PREFIX}PROCESSING_GUARANTEE=exactly_once."

    def warnings(self) -> list[str]:
        """What a person should know but need not change."""
        found = []
        if self.cart_steps[-1][1] + self.recovery_window_ms > self.cart_expiry_ms:
            found.append(
                f"{PREFIX}CART_EXPIRY ({step_name(self.cart_expiry_ms)}) ends carts before {PREFIX}RECOVERY_WINDOW "
                "after their last step has passed."
            )
        if self.processing_guarantee == "exactly_once" and self.partitions > 8 * self.workers:
            found.append(
                f"A worker should own at most 8 tasks with exactly_once: {self.partitions} on {self.workers} here."
            )
        return found

    @classmethod
    def from_environ(cls, environ: Mapping[str, str], overrides: Mapping[str, str] | None = None) -> Self:
        """Settings of `environ`'s `PULSELINE_*`, then of `overrides` (name without prefix -> text)."""
        return cls.from_sources(gather(names(), environ=environ, overrides=overrides or {}))

    @classmethod
    def load(
        cls,
        overrides: Mapping[str, str] | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        dotenv: Path = Path(".env"),
        stack: Mapping[str, str] | None = None,
    ) -> Self:
        """Settings of `overrides`, over the environment, over the `.env` file, over the running `stack`'s addresses."""
        return cls.from_sources(
            gather(
                names(),
                environ=os.environ if environ is None else environ,
                dotenv=read_dotenv(dotenv),
                stack=stack or {},
                overrides=overrides or {},
            )
        )

    @classmethod
    def from_sources(cls, texts: Mapping[str, tuple[str, str]]) -> Self:
        """Settings of setting name -> (text, source), as `gather` finds them."""
        known = names()
        values = {known[name]: _read(name, known[name], text) for name, (text, _) in texts.items()}
        try:
            return cls(**values)
        except ValidationError as error:
            attribute = str(error.errors()[0]["loc"][0])
            name = setting_name(attribute)
            raise InvalidSettings(_refusal(name, attribute, texts[name][0])) from None

    def environ(self) -> dict[str, str]:
        """The `PULSELINE_*` that give these settings back: for a child process. Not masked."""
        return {
            PREFIX + setting_name(attribute): written(getattr(self, attribute))
            for attribute in type(self).model_fields
            if getattr(self, attribute) is not None
        }

    def masked(self) -> dict[str, str]:
        """Setting name -> text, secrets and passwords in URLs hidden: the only form that may be printed or logged."""
        return {setting_name(attribute): self._shown(attribute) for attribute in type(self).model_fields}

    def _shown(self, attribute: str) -> str:
        value = getattr(self, attribute)
        return MASK if isinstance(value, SecretStr) else mask(written(value, duration=attribute.endswith("_ms")))

    def __repr_args__(self) -> Iterator[tuple[str, str]]:
        yield from self.masked().items()

    def topic(self, role: str) -> str:
        """Name of a registered topic: "engagement.cart.v1" of "cart"."""
        return topic_name(self.topic_prefix, f"{role}.v1")

    @property
    def score_min_delta_hundredths(self) -> int:
        return round(self.score_min_delta * 100)

    def cart_policy(self) -> "CartPolicy":
        """The cart rules as the core takes them."""
        from streams.engagement.cart import CartPolicy

        return CartPolicy(
            steps=self.cart_steps,
            cart_expiry_ms=self.cart_expiry_ms,
            order_scope=self.order_scope,
            recovery_window_ms=self.recovery_window_ms,
            trigger_cooldown_ms=self.trigger_cooldown_ms,
            min_cart_value_minor=self.min_cart_value_minor,
        )

    def rules(self) -> "Rules":
        """All rules as the core takes them; reads the score model's file, if one is named."""
        from streams.engagement.profile import Rules
        from streams.engagement.scoring import ScoreModel

        if self.score_model is None:
            return Rules(cart=self.cart_policy(), score_model=ScoreModel.default())
        try:
            return Rules(
                cart=self.cart_policy(),
                score_model=ScoreModel.from_toml(self.score_model.read_bytes(), self.score_model.stem),
            )
        except (OSError, InvalidSettings) as error:
            raise InvalidSettings(f"{PREFIX}SCORE_MODEL={self.score_model} cannot be used: {error}.") from error


def setting_name(attribute: str) -> str:
    """LATENESS of lateness_ms: the name without `PULSELINE_`."""
    return attribute.removesuffix("_ms").upper()


@cache
def names() -> dict[str, str]:
    """Setting name (without prefix) -> attribute, in the order of the record."""
    return {setting_name(attribute): attribute for attribute in Settings.model_fields}


def accepts(attribute: str) -> str:
    """What a setting accepts, in words."""
    form = _form(attribute)
    choices = [str(choice) for choice in get_args(Settings.model_fields[attribute].annotation)]
    return form.accepts if form else " or ".join(choices) or "some text"


def is_secret(attribute: str) -> bool:
    """Whether a setting is a secret by itself: it has no flag."""
    form = _form(attribute)
    return form is not None and form.secret


def _form(attribute: str) -> Form | None:
    return next((form for form in Settings.model_fields[attribute].metadata if isinstance(form, Form)), None)


def _read(name: str, attribute: str, text: str) -> Any:
    field, form = Settings.model_fields[attribute], _form(attribute)
    if form is None:
        return next((choice for choice in get_args(field.annotation) if choice.lower() == text.lower()), text)
    try:
        return form.read(text)
    except ValueError:
        raise InvalidSettings(_refusal(name, attribute, text)) from None


def _refusal(name: str, attribute: str, text: str) -> str:
    shown = MASK if is_secret(attribute) else mask(text)
    return f"{PREFIX}{name}={shown} is not accepted: it takes {accepts(attribute)}."
