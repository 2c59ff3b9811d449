"""One customer as the contract describes it, with the full history kept and everything recomputed from it."""

from math import exp, floor
from typing import Any

from xxhash import xxh3_64_intdigest

from tests.support.fold_carts import CartFold
from tests.support.fold_input import by_customer

MINUTE_MS = 60_000
HOUR_MS = 3_600_000
DAY_MS = 86_400_000
SESSION_GAP_MS = 30 * MINUTE_MS
MEMORY_MAX = 128
ORDER_MEMORY_MS = 30 * DAY_MS

WINDOWS = {  # name: (length, bucket)
    "1h": (HOUR_MS, 5 * MINUTE_MS),
    "24h": (DAY_MS, HOUR_MS),
    "7d": (7 * DAY_MS, DAY_MS),
    "30d": (30 * DAY_MS, DAY_MS),
}
PAGES = ("page_viewed", "product_viewed", "product_list_viewed")
SESSION_CHANNELS = ("clickstream", "cart")

# The contract's table: cap, half-life in days, k, weights.
CHANNELS: dict[str, tuple[int, int, int, dict[str, int]]] = {
    "clickstream": (
        30,
        2,
        20,
        {
            "page_viewed": 1,
            "product_list_viewed": 1,
            "link_clicked": 1,
            "product_viewed": 2,
            "product_clicked": 2,
            "products_searched": 2,
            "application_opened": 2,
            "application_installed": 6,
            "store_entered": 8,
            "application_uninstalled": -15,
        },
    ),
    "cart": (
        35,
        7,
        30,
        {
            "product_added": 5,
            "cart_viewed": 2,
            "product_removed": -1,
            "checkout_started": 8,
            "checkout_step_completed": 4,
            "payment_info_entered": 6,
            "order_completed": 20,
            "order_cancelled": -10,
            "order_refunded": -10,
        },
    ),
    "email": (
        20,
        14,
        15,
        {"email_opened": 2, "email_link_clicked": 6, "email_unsubscribed": -15, "email_marked_as_spam": -20},
    ),
    "social": (
        15,
        14,
        15,
        {
            "post_liked": 2,
            "post_replied": 5,
            "post_commented": 5,
            "post_shared": 6,
            "brand_mentioned": 6,
            "brand_tagged": 6,
            "account_followed": 5,
            "account_unfollowed": -8,
        },
    ),
}


class EventIds:
    """The memory of one topic: 128 newest hashes by (time, hash), none older than 24 h before the newest."""

    def __init__(self) -> None:
        self.kept: list[tuple[int, int]] = []

    def is_duplicate(self, event_id: str, at_ms: int) -> bool:
        """True where the id is remembered; otherwise remembers it. Below the kept range nothing is checked."""
        entry = (at_ms, xxh3_64_intdigest(event_id.encode()))
        newest_ms = max([at_ms, *(known_ms for known_ms, _ in self.kept)])
        self.kept = [known for known in self.kept if known[0] >= newest_ms - DAY_MS]
        if at_ms < newest_ms - DAY_MS or (len(self.kept) == MEMORY_MAX and entry < self.kept[0]):
            return False
        if any(known == entry[1] for _, known in self.kept):
            return True
        self.kept = sorted([*self.kept, entry])[-MEMORY_MAX:]
        return False


class ProfileFold:
    """apply() each accepted event of the customer; `history` keeps every applied event and every repeated order."""

    def __init__(self, customer_id: str, policy: dict[str, Any]) -> None:
        self.customer_id = customer_id
        self.policy = policy
        self.carts = CartFold(customer_id, policy)
        self.ids = {channel: EventIds() for channel in CHANNELS}
        self.history: list[dict[str, Any]] = []
        self.clicks: list[tuple[str, int, int]] = []
        """(trigger_id, clicked_ms, watermark of the email topic when read)"""

    def apply(self, event: dict[str, Any], channel: str, wm: int) -> bool:
        """True where the event is applied, False where it is a duplicate; `wm` is that of its own topic."""
        at_ms = event["occurred_at_ms"]
        if self.ids[channel].is_duplicate(event["event_id"], at_ms):
            return False
        entry = {
            "event": event,
            "type": event["type"],
            "channel": channel,
            "stated_ms": at_ms,
            "counted_ms": at_ms,
            "by_customer": by_customer(event),
            "in_session": channel in SESSION_CHANNELS and by_customer(event) and at_ms >= wm,
            "repeats": None,
            "total_minor": event.get("total_minor"),
            "currency": event.get("currency") and event["currency"][:8],
        }
        if event["type"] == "order_completed":
            entry["repeats"] = self.known_order(event["order_id"], at_ms)
        self.history.append(entry)
        if channel == "cart":
            self.carts.release(wm)
            self.carts.read(event, wm)
        if event["type"] == "email_link_clicked" and event["trigger_id"] is not None and entry["by_customer"]:
            self.clicks.append((event["trigger_id"], at_ms, wm))
        first = entry["repeats"]
        if first is None:
            return True
        first["counted_ms"] = min(first["counted_ms"], at_ms)
        best = max((first, entry), key=lambda each: (amount(each["total_minor"]), each["currency"] or ""))
        first["total_minor"], first["currency"] = best["total_minor"], best["currency"]
        return False

    def known_order(self, order_id: str, at_ms: int) -> dict[str, Any] | None:
        for entry in self.history:
            if (
                entry["type"] == "order_completed"
                and entry["repeats"] is None
                and entry["event"]["order_id"] == order_id
            ) and abs(entry["counted_ms"] - at_ms) <= ORDER_MEMORY_MS:
                return entry
        return None

    @property
    def counted(self) -> list[dict[str, Any]]:
        """What counts in counters, weights and rev: applied events, each once."""
        return [entry for entry in self.history if entry["repeats"] is None]

    @property
    def as_of_ms(self) -> int:
        return max(entry["stated_ms"] for entry in self.history)

    @property
    def last_seen_ms(self) -> int | None:
        return max((entry["stated_ms"] for entry in self.history if entry["by_customer"]), default=None)

    # ---------------------------------------------------------------- counters

    def counters(self) -> dict[str, dict[str, int]]:
        as_of_ms = self.as_of_ms
        counters: dict[str, dict[str, int]] = {}
        for entry in self.counted:
            row = counters.setdefault(entry["type"], dict.fromkeys(WINDOWS, 0))
            for name, (length_ms, bucket_ms) in WINDOWS.items():
                start_ms = entry["counted_ms"] // bucket_ms * bucket_ms
                row[name] += as_of_ms - length_ms < start_ms <= as_of_ms
        return {kind: row for kind, row in sorted(counters.items()) if row["30d"]}

    # ---------------------------------------------------------------- score

    def channels(self) -> dict[str, dict[str, int]]:
        sums: dict[str, dict[str, int]] = {}
        for channel, (_, half_life_days, _, weights) in CHANNELS.items():
            half_life_ms = half_life_days * DAY_MS
            weighed = [
                entry
                for entry in self.history
                if entry["channel"] == channel and entry["type"] in weights and not is_opened_by_machine(entry["event"])
            ]
            if not weighed:
                continue
            newest = max(entry["stated_ms"] // (16 * half_life_ms) for entry in weighed)
            totals = {newest: 0, newest - 1: 0}
            for entry in weighed:
                window, offset_ms = divmod(entry["counted_ms"], 16 * half_life_ms)
                if entry["repeats"] is None and window in totals:
                    totals[window] += round(weights[entry["type"]] * 2**20 * 2 ** (offset_ms / half_life_ms))
            sums[channel] = {"window": newest, "current": totals[newest], "previous": totals[newest - 1]}
        return sums

    def raw(self) -> dict[str, float]:
        """v of each channel at as_of."""
        values = dict.fromkeys(CHANNELS, 0.0)
        for channel, sums in self.channels().items():
            half_life_ms = CHANNELS[channel][1] * DAY_MS
            for window, total in ((sums["window"], sums["current"]), (sums["window"] - 1, sums["previous"])):
                values[channel] += total * 2**-20 * 2 ** ((16 * half_life_ms * window - self.as_of_ms) / half_life_ms)
        return values

    def contributions(self) -> dict[str, int]:
        """Hundredths of each channel."""
        hundredths = {}
        for channel, value in self.raw().items():
            cap, _, k, _ = CHANNELS[channel]
            hundredths[channel] = floor(100 * cap * (1 - exp(-max(value, 0) / k)) + 0.5)
        return hundredths

    # ---------------------------------------------------------------- sessions

    def all_sessions(self) -> list[dict[str, int]]:
        """Every session so far, final or not, oldest first."""
        members = [entry for entry in self.history if entry["in_session"]]
        sessions: list[dict[str, int]] = []
        for entry in sorted(members, key=lambda entry: int(entry["stated_ms"])):
            at_ms = entry["stated_ms"]
            if not sessions or at_ms - sessions[-1]["last_ms"] > SESSION_GAP_MS:
                sessions.append(
                    {"first_ms": at_ms, "last_ms": at_ms, "events": 0, "pages": 0, "cart_events": 0, "order_events": 0}
                )
            session = sessions[-1]
            session["last_ms"] = at_ms
            session["events"] += 1
            session["pages"] += entry["type"] in PAGES
            session["order_events"] += entry["type"] == "order_completed"
            session["cart_events"] += entry["channel"] == "cart" and entry["type"] != "order_completed"
        return sessions

    def open_sessions(self, watermark_ms: int) -> list[dict[str, int]]:
        return [session for session in self.all_sessions() if watermark_ms <= session["last_ms"] + SESSION_GAP_MS]

    # ---------------------------------------------------------------- what people see

    def view(self, session_watermark_ms: int) -> dict[str, Any]:
        contributions = self.contributions()
        return {
            "customer_id": self.customer_id,
            "rev": len(self.counted),
            "as_of_ms": self.as_of_ms,
            "last_seen_ms": self.last_seen_ms,
            "channels": self.channels(),
            "counters": self.counters(),
            "score": decimal(sum(contributions.values())),
            "contributions": {channel: decimal(hundredths) for channel, hundredths in contributions.items()},
            "sessions": self.open_sessions(session_watermark_ms),
            "carts": self.carts.view(),
            "waiting": len(self.carts.waiting),
        }


def is_opened_by_machine(event: dict[str, Any]) -> bool:
    """The two types that weigh 0 if a machine did them."""
    return event.get("machine") is True and event["type"] in ("email_opened", "email_link_clicked")


def amount(total_minor: int | None) -> int:
    """A missing total is less than any other."""
    return -1 if total_minor is None else total_minor


def decimal(hundredths: int) -> str:
    return f"{hundredths // 100}.{hundredths % 100:02d}"
