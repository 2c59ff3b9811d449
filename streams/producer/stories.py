"""What simulated shoppers do: each story is one visit, told as events in the order in which they happen."""

from collections.abc import Callable
from typing import Any

from streams.producer.visit import CATALOGUE, Visit, look

TAKE_OVER_MS = 10 * 60_000
NETWORKS = ("instagram", "facebook", "tiktok")


def browse(visit: Visit) -> None:
    """Look, and now and then meet an experiment, a tracked link, the application or the store."""
    look(visit)
    visit.pause(1, 20)
    extra = visit.rng.randrange(8)
    if extra == 0:
        visit.do("experiment_viewed", experiment_id="checkout-2", variant_id=visit.rng.choice("ab"))
    elif extra == 1:
        visit.do("link_clicked", link_id="banner", url="https://shop.example/sale")
    elif extra == 2:
        visit.do(visit.rng.choice(("application_installed", "application_opened", "application_uninstalled")))
    elif extra == 3:
        visit.do("store_entered", store_id="s-1")


def newsletter(visit: Visit) -> None:
    """A mail of the brand that is no trigger's."""
    visit.mail(clicks=visit.rng.random() < 0.5)
    if visit.rng.random() < 0.1:
        unwanted = ("email_unsubscribed", "email_marked_as_spam", "email_bounced")
        visit.do(visit.rng.choice(unwanted), campaign_id="newsletter")


def social(visit: Visit) -> None:
    """Likes, shares, comments, follows."""
    network = visit.rng.choice(NETWORKS)
    post: dict[str, Any] = {"network": network, "post_id": f"post-{visit.rng.randrange(20)}"}
    kinds = ("post_liked", "post_liked", "post_shared", "post_commented", "post_replied")
    for kind in visit.rng.sample(kinds, visit.rng.randint(1, 3)):
        visit.do(kind, sentiment=round(visit.rng.uniform(-1, 1), 2), **post)
        visit.pause(1, 20)
    if visit.rng.random() < 0.3:
        kinds = ("account_followed", "account_followed", "account_unfollowed", "brand_mentioned", "brand_tagged")
        visit.do(visit.rng.choice(kinds), network=network)


def audience(visit: Visit) -> None:
    """The followers of the brand's account are counted."""
    visit.customer_id = "@shop"
    visit.do("audience_counted", network=visit.rng.choice(NETWORKS), followers=10_000 + visit.rng.randrange(2_000))


def buy(visit: Visit) -> None:
    """Fill a cart and order it."""
    visit.fill()
    if visit.rng.random() < 0.7:
        visit.touch("checkout_started", checkout_url="https://shop.example/checkout", shipping_minor=490)
        visit.pause(2, 20)
        visit.touch("checkout_step_completed", step=1)
        visit.touch("payment_info_entered")
    visit.pause(2, 20)
    visit.order()


def cancel(visit: Visit) -> None:
    """Order, and let the brand cancel or refund it."""
    visit.fill()
    order = visit.order("cancelled_order").fields
    visit.pause(60, 600)
    kind = visit.rng.choice(("order_cancelled", "order_refunded"))
    visit.do(kind, order_id=order["order_id"], total_minor=order["total_minor"], currency=visit.currency)


def abandon(visit: Visit) -> None:
    """Fill a cart, perhaps begin the checkout, and leave."""
    visit.fill()
    if visit.rng.random() < 0.3:
        visit.touch("checkout_started", checkout_url="https://shop.example/checkout", shipping_minor=490)
    visit.acts[-1].label = "abandoned"


def recover(visit: Visit) -> None:
    """Leave a cart until its first step was due, click the mail about it, and order."""
    visit.fill()
    visit.after_step()
    visit.mail("clicked_trigger", trigger_id=visit.expected_trigger_id())
    visit.pause(5, 60)
    visit.order("recovered")


def return_unasked(visit: Visit) -> None:
    """Leave a cart until its first step was due, and order without having read any mail."""
    visit.fill()
    visit.after_step()
    visit.do("page_viewed", url="https://shop.example/")
    visit.pause(5, 60)
    visit.order("recovered")


def resume(visit: Visit) -> None:
    """Leave a cart until its first step was due, touch it again, and leave it again or order."""
    visit.fill()
    visit.after_step()
    visit.add("rearmed")
    if visit.rng.random() < 0.3:
        visit.pause(5, 60)
        visit.order()


def late_touch(visit: Visit) -> None:
    """Fill a cart; a part of what was done to it becomes known late."""
    visit.fill()
    visit.pause(1, 10)
    kind = visit.rng.randrange(5)
    if kind < 2:
        late = visit.add("late_cart_event")
    elif kind == 2:
        late = visit.do("product_removed", "late_cart_event", cart_id=visit.cart_id, product_id=next(iter(visit.lines)))
    elif kind == 3:
        late = visit.do("checkout_started", "late_cart_event", cart_id=visit.cart_id, shipping_minor=490)
    else:
        replaced = visit.rng.choice(CATALOGUE).line(1)
        late = visit.do(
            "cart_updated", "late_cart_event", cart_id=visit.cart_id, currency=visit.currency, items=[replaced]
        )
    late.late_ms = visit.late()
    if visit.rng.random() < 0.5:
        visit.before_step()
        visit.add()


def late_order(visit: Visit) -> None:
    """Order before any step is due; it becomes known late, often only after steps fired, or a new line was added."""
    visit.fill()
    visit.before_step()
    late = visit.order("late_order")
    late.late_ms = visit.late() + visit.rng.choice((0, visit.steps[0][1]))
    if visit.rng.random() < 0.3:
        visit.pause(5, 60)
        visit.add()


def take_over(visit: Visit) -> None:
    """Empty the cart on the way to the order, as some shops do."""
    visit.fill()
    visit.pause(1, 10)
    if visit.rng.random() < 0.5:
        visit.do("cart_cleared", cart_id=visit.cart_id)
    else:
        for product_id in visit.lines:
            visit.do("product_removed", cart_id=visit.cart_id, product_id=product_id)
    visit.at_ms += visit.rng.choice((TAKE_OVER_MS, TAKE_OVER_MS + 1, 1_000, 5_000, 20_000, 60_000))
    visit.order("taken_over")


def empty(visit: Visit) -> None:
    """Fill a cart and empty it."""
    visit.fill()
    visit.pause(5, 100)
    if visit.rng.random() < 0.5:
        visit.do("cart_cleared", "emptied", cart_id=visit.cart_id)
    else:
        visit.do("cart_updated", "emptied", cart_id=visit.cart_id, items=[])


def repeat_order(visit: Visit) -> None:
    """Order once and report it twice, with another total and perhaps an earlier time."""
    visit.fill()
    visit.pause(5, 60)
    first = visit.order().fields
    visit.pause(1, 300)
    again = visit.order("repeated_order", order_id=first["order_id"], total_minor=first["total_minor"] + 500)
    if visit.rng.random() < 0.5:
        again.at_ms = again.fields["occurred_at_ms"] = first["occurred_at_ms"] - visit.rng.randrange(1_000)
        again.late_ms = visit.at_ms - again.at_ms


def two_carts(visit: Visit) -> None:
    """Keep two carts and order one of them."""
    visit.fill()
    visit.cart_id = f"b-{visit.rng.getrandbits(32):08x}"
    visit.lines = {}
    visit.fill()
    visit.order()


def replace(visit: Visit) -> None:
    """Replace all lines at once, look at the cart, take something out."""
    visit.fill()
    chosen = visit.rng.sample(CATALOGUE, visit.rng.randint(1, 4))
    lines = [product.line(visit.rng.randint(1, 3)) for product in chosen]
    visit.touch("cart_updated", currency=visit.currency, items=lines)
    visit.pause(1, 20)
    visit.do("cart_viewed", cart_id=visit.cart_id)
    visit.touch("product_removed", product_id=lines[0]["product_id"], quantity=1)


def all_at_once(visit: Visit) -> None:
    """A touch, an order and perhaps a clear at the very same time."""
    visit.fill()
    visit.add()
    kinds = visit.rng.sample(("order", "clear", "touch"), 3)
    for kind in kinds:
        if kind == "order":
            visit.order("same_time")
        elif kind == "touch":
            visit.add()
        elif visit.rng.random() < 0.4:
            visit.do("cart_cleared", cart_id=visit.cart_id)


def log_in(visit: Visit) -> None:
    """Fill a cart as a visitor, log in, and go on as a known customer."""
    known = visit.customer_id
    visit.customer_id = f"v-{visit.rng.getrandbits(40):010x}"
    visit.fill()
    visit.do("identity_linked", "logged_in", to_customer_id=known)
    visit.customer_id = known
    visit.pause(0.5, 2)
    visit.add()
    visit.pause(5, 30)
    if visit.rng.random() < 0.5:
        visit.order()


Story = Callable[[Visit], None]

# A story about a cart waits until the shopper's one before has been told; the others may overlap with anything.
CART_STORIES: tuple[Story, ...] = (
    buy,
    cancel,
    abandon,
    recover,
    return_unasked,
    resume,
    late_touch,
    late_order,
    take_over,
    empty,
    repeat_order,
    two_carts,
    replace,
    all_at_once,
    log_in,
)
STORIES: dict[str, Story] = {story.__name__: story for story in (browse, newsletter, social, audience, *CART_STORIES)}
