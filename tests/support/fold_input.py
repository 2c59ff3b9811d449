"""Reads input records for the independent fold: bytes in, every known field or the reason of a rejection out.

Written by hand from the contract, with json.loads and plain tables, so that it shares no line with the codec it judges.
"""

import json
from typing import Any

MINUTE_MS = 60_000
DAY_MS = 86_400_000
VALUE_BYTES_MAX = 65_536
AMOUNT_MAX = 10**12
ITEMS_MAX = 100
EXACT_INTEGER_MAX = 2**53 - 1
FUTURE_MS = 5 * MINUTE_MS
TOO_OLD_MS = 400 * DAY_MS
NESTING_MAX = 200
CONTROLLED = ("cart", "clickstream")

TYPES: dict[str, tuple[str, ...]] = {
    "clickstream": (
        *(
            "page_viewed",
            "product_list_viewed",
            "product_viewed",
            "product_clicked",
            "products_searched",
            "link_clicked",
        ),
        *(
            "application_installed",
            "application_opened",
            "application_uninstalled",
            "store_entered",
            "experiment_viewed",
        ),
    ),
    "cart": (
        *("product_added", "product_removed", "cart_updated", "cart_cleared", "cart_viewed", "checkout_started"),
        *("checkout_step_completed", "payment_info_entered", "order_completed", "order_cancelled", "order_refunded"),
        "identity_linked",
    ),
    "email": (
        *("email_sent", "email_delivered", "email_opened", "email_link_clicked", "email_bounced"),
        *("email_marked_as_spam", "email_unsubscribed"),
    ),
    "social": (
        *("post_liked", "post_shared", "post_commented", "brand_mentioned", "brand_tagged", "post_replied"),
        *("account_followed", "account_unfollowed", "audience_counted"),
    ),
}
CHANNEL_OF_TYPE = {kind: channel for channel, kinds in TYPES.items() for kind in kinds}

# field -> (kind, low, high): "text" counts characters, "integer" and "number" are inclusive ranges.
Rule = tuple[str, float, float]
TEXT: Rule = ("text", 0, 512)
URL: Rule = ("text", 0, 2_048)
MONEY: Rule = ("integer", 0, AMOUNT_MAX)
QUANTITY: Rule = ("integer", 1, 1_000_000)

COMMON: dict[str, Rule] = {
    "event_id": ("text", 1, 100),
    "customer_id": ("text", 1, 128),
    "occurred_at_ms": ("integer", 0, EXACT_INTEGER_MAX),
    **dict.fromkeys(("session_id", "anonymous_id", "device", "country", "source"), TEXT),
}
LINE: dict[str, Rule] = {
    **dict.fromkeys(("product_id", "name", "category"), TEXT),
    **dict.fromkeys(("url", "image_url"), URL),
    "quantity": QUANTITY,
    "unit_price_minor": MONEY,
}
FIELDS: dict[str, dict[str, Rule]] = {
    "clickstream": {
        **COMMON,
        **dict.fromkeys(
            ("title", "category", "product_id", "query", "link_id", "store_id", "experiment_id", "variant_id"), TEXT
        ),
        "url": URL,
    },
    "cart": {
        **COMMON,
        **LINE,
        **dict.fromkeys(("cart_id", "checkout_id", "currency", "order_id"), TEXT),
        **dict.fromkeys(("total_minor", "shipping_minor"), MONEY),
        "step": ("integer", -EXACT_INTEGER_MAX, EXACT_INTEGER_MAX),
        "checkout_url": URL,
        "items": ("lines", 0, ITEMS_MAX),
        "to_customer_id": ("text", 1, 128),
    },
    "email": {
        **COMMON,
        **dict.fromkeys(("email_id", "campaign_id", "campaign_name", "variant_id", "trigger_id"), TEXT),
        "url": URL,
        "machine": ("flag", 0, 0),
    },
    "social": {
        **COMMON,
        **dict.fromkeys(("network", "post_id", "campaign_id"), TEXT),
        "sentiment": ("number", -1, 1),
        "followers": ("integer", 0, AMOUNT_MAX),
    },
}
# Each entry is a choice: one of its fields must be given.
PRODUCT = ("product_id", "name")
REQUIRED_OF_ALL = (("event_id",), ("customer_id",), ("occurred_at_ms",))
REQUIRED_OF_CHANNEL = {"email": (("email_id", "campaign_id"),), "social": (("network",),)}
REQUIRED_OF_TYPE: dict[str, tuple[tuple[str, ...], ...]] = {
    "product_viewed": (("product_id",),),
    "product_clicked": (("product_id",),),
    "experiment_viewed": (("experiment_id",), ("variant_id",)),
    "product_added": (PRODUCT,),
    "product_removed": (PRODUCT,),
    "order_completed": (("order_id",),),
    "order_cancelled": (("order_id",),),
    "order_refunded": (("order_id",),),
    "identity_linked": (("to_customer_id",),),
    "audience_counted": (("followers",),),
}
BY_BRAND = {"email_sent", "email_delivered", "email_bounced", "order_cancelled", "order_refunded", "audience_counted"}


class Rejected(Exception):
    """The record is not accepted; `reason` is the class name that the rejected topic carries."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def by_customer(event: dict[str, Any]) -> bool:
    """True where the customer acted, not the brand and not a machine."""
    return event["type"] not in BY_BRAND and event.get("machine") is not True


def read_control(record: Any, channel: str) -> int | None:
    """The W of a punctuation record, None for any other record; raises Rejected for a malformed one."""
    marked = "pl-control" in {name for name, _ in record.headers or ()}
    if channel not in CONTROLLED or not marked or (record.key is not None and record.value is not None):
        return None
    fields = read_object(record.value)
    if "type" not in fields:
        raise Rejected("MissingField")
    if fields["type"] != "watermark_advanced":
        raise Rejected("UnknownType")
    if "watermark_ms" not in fields:
        raise Rejected("MissingField")
    watermark_ms = fields["watermark_ms"]
    if not fits(watermark_ms, COMMON["occurred_at_ms"]):
        raise Rejected("InvalidField")
    return int(watermark_ms)


def read_event(record: Any, channel: str) -> dict[str, Any]:
    """The accepted event with None for every absent field; raises Rejected with the first reason that applies."""
    fields = parse(record, channel)
    kind = fields["type"]
    problems: set[str] = set()
    for choice in (*REQUIRED_OF_CHANNEL.get(channel, ()), *REQUIRED_OF_TYPE.get(kind, ()), *REQUIRED_OF_ALL):
        if len(choice) == 1 and choice[0] in fields and fields[choice[0]] is None:
            problems.add("InvalidField")  # null is absence in an optional field only
        elif all(fields.get(name) is None for name in choice):
            problems.add("MissingField")
    event = check_fields(fields, rules_of(kind), problems)
    for reason in ("MissingField", "InvalidField"):
        if reason in problems:
            raise Rejected(reason)
    event["type"] = kind
    check_key(record.key, event["customer_id"])
    if event["occurred_at_ms"] > record.timestamp + FUTURE_MS:
        raise Rejected("Future")
    if event["occurred_at_ms"] < record.timestamp - TOO_OLD_MS:
        raise Rejected("TooOld")
    return event


def parse(record: Any, channel: str) -> dict[str, Any]:
    """The JSON object of a record whose type belongs to the channel."""
    fields = read_object(record.value)
    if "type" not in fields:
        raise Rejected("MissingField")
    kind = fields["type"]
    if not isinstance(kind, str) or kind not in CHANNEL_OF_TYPE:
        raise Rejected("UnknownType")
    if CHANNEL_OF_TYPE[kind] != channel:
        raise Rejected("WrongTopic")
    return fields


def read_object(value: bytes | None) -> dict[str, Any]:
    if value is None:
        raise Rejected("NullValue")
    if len(value) > VALUE_BYTES_MAX:
        raise Rejected("TooLarge")
    try:
        parsed = json.loads(value.decode("utf-8"), parse_constant=no_constant)
        json.dumps(parsed, ensure_ascii=False).encode("utf-8")  # fails where a surrogate stands alone
        if depth(parsed) > NESTING_MAX:
            raise Rejected("NotJson")
    except (ValueError, RecursionError):
        raise Rejected("NotJson") from None
    if not isinstance(parsed, dict):
        raise Rejected("NotAnObject")
    return parsed


def depth(value: Any) -> int:
    """How many arrays and objects stand in each other."""
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth, value), default=0)
    return 0


def no_constant(name: str) -> float:
    """NaN and the infinities are no JSON, though json.loads reads them."""
    raise ValueError(name)


def rules_of(kind: str) -> dict[str, Rule]:
    rules = FIELDS[CHANNEL_OF_TYPE[kind]]
    return (
        rules if kind == "identity_linked" else {name: rule for name, rule in rules.items() if name != "to_customer_id"}
    )


def check_fields(fields: dict[str, Any], rules: dict[str, Rule], problems: set[str]) -> dict[str, Any]:
    """The known fields, None where absent; what is wrong with them is added to problems."""
    checked: dict[str, Any] = dict.fromkeys(rules)
    for name, rule in rules.items():
        value = fields.get(name)
        if value is None:
            continue
        if rule[0] == "lines":
            checked[name] = check_lines(value, problems)
        elif fits(value, rule):
            checked[name] = value
        else:
            problems.add("InvalidField")
    price = checked.get("unit_price_minor")
    if price is not None and price * (checked["quantity"] or 1) > AMOUNT_MAX:
        problems.add("InvalidField")
    return checked


def fits(value: Any, rule: Rule) -> bool:
    kind, low, high = rule
    if kind == "flag":
        return isinstance(value, bool)
    if kind == "text":
        return isinstance(value, str) and low <= len(value) <= high
    if kind == "integer":
        return type(value) is int and low <= value <= high
    return type(value) in (int, float) and low <= value <= high


def check_lines(lines: Any, problems: set[str]) -> list[dict[str, Any]]:
    if not isinstance(lines, list) or len(lines) > ITEMS_MAX:
        problems.add("InvalidField")
        return []
    checked = []
    for line in lines:
        if not isinstance(line, dict):
            problems.add("InvalidField")
            continue
        if all(line.get(name) is None for name in PRODUCT):
            problems.add("MissingField")
        checked.append(check_fields(line, LINE, problems))
    return checked


def check_key(key: bytes | None, customer_id: str) -> None:
    if key is None:
        raise Rejected("KeyMissing")
    try:
        same = key.decode("utf-8") == customer_id
    except UnicodeDecodeError:
        same = False
    if not same:
        raise Rejected("KeyMismatch")
