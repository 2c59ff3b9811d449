"""Two implementations of one contract, written apart: the profile and the independent fold agree on wild logs."""

from collections import Counter
from dataclasses import asdict
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from models.codec import codec_for
from streams.engagement.cart import CartPolicy
from streams.engagement.decisions import Decided, DueStep
from streams.engagement.profile import Profile, Rules
from streams.engagement.scoring import ScoreModel
from tests.support.fold import DEFAULT_POLICY, NO_WATERMARK, fold
from tests.support.judge import differences
from tests.support.log_builder import HOUR_MS, MINUTE_MS
from tests.support.wild_log import WildLog

POLICIES: list[dict[str, Any]] = [
    {},
    {"order_scope": "cart"},
    {"trigger_cooldown_ms": 30 * MINUTE_MS},
    {"min_cart_value_minor": 150},
    {"lateness_ms": 20 * MINUTE_MS},
    {"lateness_ms": HOUR_MS},
]


class Core:
    """The profile of one customer fed as a task feeds it, and stored and loaded again now and then."""

    def __init__(self, policy: dict[str, Any], reload_every: int) -> None:
        names = (
            "steps",
            "cart_expiry_ms",
            "order_scope",
            "recovery_window_ms",
            "trigger_cooldown_ms",
            "min_cart_value_minor",
        )
        self.rules = Rules(cart=CartPolicy(**{name: policy[name] for name in names}), score_model=ScoreModel.default())
        self.lateness_ms = policy["lateness_ms"]
        self.reload_every = reload_every
        self.profile = Profile("c")
        self.decided = Decided()
        self.account: dict[tuple[str, int], Counter[str]] = {}

    def read(self, logs: dict[tuple[str, int], list[Any]]) -> None:
        watermarks = {}
        for (topic, partition), log in logs.items():
            counts = self.account[topic, partition] = Counter()
            watermark_ms = NO_WATERMARK
            for number, record in enumerate(log):
                kind, watermark_ms = self.read_one(topic, record, watermark_ms)
                counts[kind] += 1
                if number % self.reload_every == 0:
                    self.profile = Profile.unpack("c", self.profile.pack_hot(), self.profile.pack_cold())
            watermarks[topic] = watermark_ms
        ends = [watermarks.get(f"engagement.{name}.v1", NO_WATERMARK) for name in ("clickstream", "cart")]
        self.profile.close_sessions(min(ends), self.rules, self.decided)

    def read_one(self, topic: str, record: Any, watermark_ms: int) -> tuple[str, int]:
        codec = codec_for(topic.removeprefix("engagement."))
        event: Any = codec.read(record.key, record.value, record.timestamp, record.headers)
        if event.type == "watermark_advanced":
            kind, at_ms = "control", min(event.watermark_ms, record.timestamp - self.lateness_ms)
        else:
            applied = self.profile.apply(event, watermark_ms, self.rules, self.decided)
            kind = "applied" if applied else "duplicate"
            at_ms = min(event.occurred_at_ms, record.timestamp) - self.lateness_ms
        watermark_ms = max(watermark_ms, at_ms)
        if topic == "engagement.cart.v1":
            self.profile.release(watermark_ms, self.rules, self.decided)
        return kind, watermark_ms

    def decisions(self) -> Counter[str]:
        """Every decision as text, so that one made twice counts twice."""
        return Counter(text_of(content_of(one)) for one in self.decided.steps_and_outcomes)


def content_of(decision: Any) -> dict[str, Any]:
    content = asdict(decision)
    if not isinstance(decision, DueStep):
        return {**content, "outcome_id": decision.outcome_id}
    del content["first_due_ms"], content["triggers"]
    items_count = sum(item["quantity"] for item in content["items"])
    return {**content, "trigger_id": decision.trigger_id, "items_count": items_count}


def text_of(content: dict[str, Any]) -> str:
    return repr(sorted(content.items()))


@given(
    seed=st.integers(0, 10**9),
    records=st.sampled_from([20, 60, 60, 150]),
    policy=st.sampled_from(POLICIES),
    reload_every=st.integers(1, 30),
)
def test_the_profile_equals_the_fold(seed: int, records: int, policy: dict[str, Any], reload_every: int) -> None:
    """Every decision with its content, the account, and the whole view; stored and loaded anywhere between."""
    logs = WildLog(seed, records).logs
    want = fold(logs, policy, strict=False)
    core = Core({**DEFAULT_POLICY, **policy}, reload_every)
    core.read(logs)
    decisions = [
        *want.triggers.values(),
        *want.outcomes.values(),
        *(one for more in want.collisions.values() for one in more),
    ]
    assert core.decisions() == Counter(map(text_of, decisions))
    assert core.account == {place: +Counter(counts) for place, counts in want.account.items()}
    assert differences(want.customers["c"], core.profile.view(core.rules.score_model)) == []
