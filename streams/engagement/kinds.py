"""What the core needs to know of each event type: its code in packed state, its topic, and what it does to a session.

`Kind.code` is stored in every profile, so this table only ever grows at its end.
"""

from typing import Final, NamedTuple

CHANNELS: Final = ("clickstream", "cart", "email", "social")
CLICKSTREAM: Final = 0
CART: Final = 1
EMAIL: Final = 2
SOCIAL: Final = 3


class Kind(NamedTuple):
    """An event type. code: its number in packed counters; topic: index into CHANNELS; page: 1 where it is a page."""

    code: int
    topic: int
    page: int


_TYPES: Final = (
    ("page_viewed", CLICKSTREAM, 1),
    ("product_list_viewed", CLICKSTREAM, 1),
    ("product_viewed", CLICKSTREAM, 1),
    ("product_clicked", CLICKSTREAM, 0),
    ("products_searched", CLICKSTREAM, 0),
    ("link_clicked", CLICKSTREAM, 0),
    ("application_installed", CLICKSTREAM, 0),
    ("application_opened", CLICKSTREAM, 0),
    ("application_uninstalled", CLICKSTREAM, 0),
    ("store_entered", CLICKSTREAM, 0),
    ("experiment_viewed", CLICKSTREAM, 0),
    ("product_added", CART, 0),
    ("product_removed", CART, 0),
    ("cart_updated", CART, 0),
    ("cart_cleared", CART, 0),
    ("cart_viewed", CART, 0),
    ("checkout_started", CART, 0),
    ("checkout_step_completed", CART, 0),
    ("payment_info_entered", CART, 0),
    ("order_completed", CART, 0),
    ("order_cancelled", CART, 0),
    ("order_refunded", CART, 0),
    ("identity_linked", CART, 0),
    ("email_sent", EMAIL, 0),
    ("email_delivered", EMAIL, 0),
    ("email_opened", EMAIL, 0),
    ("email_link_clicked", EMAIL, 0),
    ("email_bounced", EMAIL, 0),
    ("email_marked_as_spam", EMAIL, 0),
    ("email_unsubscribed", EMAIL, 0),
    ("post_liked", SOCIAL, 0),
    ("post_shared", SOCIAL, 0),
    ("post_commented", SOCIAL, 0),
    ("brand_mentioned", SOCIAL, 0),
    ("brand_tagged", SOCIAL, 0),
    ("post_replied", SOCIAL, 0),
    ("account_followed", SOCIAL, 0),
    ("account_unfollowed", SOCIAL, 0),
)

KINDS: Final[dict[str, Kind]] = {name: Kind(code, topic, page) for code, (name, topic, page) in enumerate(_TYPES)}
TYPE_OF_CODE: Final[tuple[str, ...]] = tuple(name for name, _, _ in _TYPES)
