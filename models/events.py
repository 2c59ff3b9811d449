"""Input events: one frozen, strict class per event type, and the registry of them.

The classes are the contract. `models.codec` derives a fast decoder from them, whose structs carry the same attributes
with the same values, so code typed with the unions at the end of this file (`Event`, `CartEvent`, ...) reads either.
Every type of a topic knows all fields of the topic.

A new type is a class here and its name in its topic's union; a new topic also takes a line in EVENTS_OF_TOPIC and one
in `models.topics`.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field

from models.fields import (
    ITEMS_MAX,
    AmountMinor,
    CustomerId,
    EpochMs,
    EventId,
    Followers,
    Line,
    Quantity,
    Record,
    Sentiment,
    StepNumber,
    Text,
    Url,
    check_line_amount,
)

Actor = Literal["customer", "brand"]


class EventFields(Record):
    """What every event carries. `by_customer` tells who acts in events of this type (and of no machine)."""

    by_customer: ClassVar[bool] = True

    type: str
    event_id: EventId
    customer_id: CustomerId
    occurred_at_ms: EpochMs
    session_id: Text | None = None
    anonymous_id: Text | None = None
    device: Text | None = None
    country: Text | None = None
    source: Text | None = None


class ClickstreamFields(EventFields):
    """Fields of the clickstream topic."""

    url: Url | None = None
    title: Text | None = None
    category: Text | None = None
    product_id: Text | None = None
    query: Text | None = None
    link_id: Text | None = None
    store_id: Text | None = None
    experiment_id: Text | None = None
    variant_id: Text | None = None


class PageViewed(ClickstreamFields):
    """A page was viewed."""

    type: Literal["page_viewed"] = "page_viewed"


class ProductListViewed(ClickstreamFields):
    """A list of products, such as a category, was viewed."""

    type: Literal["product_list_viewed"] = "product_list_viewed"


class ProductViewed(ClickstreamFields):
    """A product's page was viewed."""

    type: Literal["product_viewed"] = "product_viewed"
    product_id: Text


class ProductClicked(ClickstreamFields):
    """A product was clicked in a list."""

    type: Literal["product_clicked"] = "product_clicked"
    product_id: Text


class ProductsSearched(ClickstreamFields):
    """Products were searched."""

    type: Literal["products_searched"] = "products_searched"


class LinkClicked(ClickstreamFields):
    """A tracked link was clicked."""

    type: Literal["link_clicked"] = "link_clicked"


class ApplicationInstalled(ClickstreamFields):
    """The brand's application was installed."""

    type: Literal["application_installed"] = "application_installed"


class ApplicationOpened(ClickstreamFields):
    """The brand's application was opened."""

    type: Literal["application_opened"] = "application_opened"


class ApplicationUninstalled(ClickstreamFields):
    """The brand's application was uninstalled."""

    type: Literal["application_uninstalled"] = "application_uninstalled"


class StoreEntered(ClickstreamFields):
    """The customer entered a physical store."""

    type: Literal["store_entered"] = "store_entered"


class ExperimentViewed(ClickstreamFields):
    """The customer was exposed to a variant of an experiment."""

    type: Literal["experiment_viewed"] = "experiment_viewed"
    experiment_id: Text
    variant_id: Text


class CartFields(EventFields):
    """Fields of the cart topic; `cart_id` None means the customer's implicit cart."""

    cart_id: Text | None = None
    checkout_id: Text | None = None
    product_id: Text | None = None
    name: Text | None = None
    category: Text | None = None
    quantity: Quantity | None = None
    unit_price_minor: AmountMinor | None = None
    total_minor: AmountMinor | None = None
    shipping_minor: AmountMinor | None = None
    currency: Text | None = None
    items: Annotated[list[Line], Field(max_length=ITEMS_MAX)] | None = None
    order_id: Text | None = None
    step: StepNumber | None = None
    url: Url | None = None
    checkout_url: Url | None = None
    image_url: Url | None = None


class LineFields(CartFields):
    """Fields of a cart event that is itself about one line."""

    one_of = ("product_id", "name")

    def check(self) -> None:
        check_line_amount(self)


class ProductAdded(LineFields):
    """A product was added to a cart; opens one where none is open."""

    type: Literal["product_added"] = "product_added"


class ProductRemoved(LineFields):
    """A quantity of a product, or its whole line, was taken out of a cart."""

    type: Literal["product_removed"] = "product_removed"


class CartUpdated(CartFields):
    """A cart was changed; `items`, where given, replace all its lines."""

    type: Literal["cart_updated"] = "cart_updated"


class CartCleared(CartFields):
    """A cart was emptied."""

    type: Literal["cart_cleared"] = "cart_cleared"


class CartViewed(CartFields):
    """A cart was looked at."""

    type: Literal["cart_viewed"] = "cart_viewed"


class CheckoutStarted(CartFields):
    """The checkout of a cart began."""

    type: Literal["checkout_started"] = "checkout_started"


class CheckoutStepCompleted(CartFields):
    """A step of the checkout was completed."""

    type: Literal["checkout_step_completed"] = "checkout_step_completed"


class PaymentInfoEntered(CartFields):
    """Payment details were entered in the checkout."""

    type: Literal["payment_info_entered"] = "payment_info_entered"


class OrderCompleted(CartFields):
    """An order was placed."""

    type: Literal["order_completed"] = "order_completed"
    order_id: Text


class OrderCancelled(CartFields):
    """The brand cancelled an order."""

    by_customer = False
    type: Literal["order_cancelled"] = "order_cancelled"
    order_id: Text


class OrderRefunded(CartFields):
    """The brand refunded an order, wholly or by `total_minor`."""

    by_customer = False
    type: Literal["order_refunded"] = "order_refunded"
    order_id: Text


class IdentityLinked(CartFields):
    """The visitor known by this customer id logged in as `to_customer_id`; written under the old key."""

    type: Literal["identity_linked"] = "identity_linked"
    to_customer_id: CustomerId


class EmailFields(EventFields):
    """Fields of the email topic; `machine` true: done by a proxy, not by the customer."""

    one_of = ("email_id", "campaign_id")

    email_id: Text | None = None
    campaign_id: Text | None = None
    campaign_name: Text | None = None
    variant_id: Text | None = None
    url: Url | None = None
    machine: bool | None = None
    trigger_id: Text | None = None


class EmailSent(EmailFields):
    """The brand sent an email."""

    by_customer = False
    type: Literal["email_sent"] = "email_sent"


class EmailDelivered(EmailFields):
    """An email was delivered."""

    by_customer = False
    type: Literal["email_delivered"] = "email_delivered"


class EmailOpened(EmailFields):
    """An email was opened."""

    type: Literal["email_opened"] = "email_opened"


class EmailLinkClicked(EmailFields):
    """A link in an email was clicked."""

    type: Literal["email_link_clicked"] = "email_link_clicked"


class EmailBounced(EmailFields):
    """An email could not be delivered."""

    by_customer = False
    type: Literal["email_bounced"] = "email_bounced"


class EmailMarkedAsSpam(EmailFields):
    """The customer marked an email as spam."""

    type: Literal["email_marked_as_spam"] = "email_marked_as_spam"


class EmailUnsubscribed(EmailFields):
    """The customer unsubscribed."""

    type: Literal["email_unsubscribed"] = "email_unsubscribed"


class SocialFields(EventFields):
    """Fields of the social topic; `sentiment` from -1 (bad) to 1 (good)."""

    network: Text
    post_id: Text | None = None
    campaign_id: Text | None = None
    sentiment: Sentiment | None = None
    followers: Followers | None = None


class PostLiked(SocialFields):
    """A post of the brand was liked."""

    type: Literal["post_liked"] = "post_liked"


class PostShared(SocialFields):
    """A post of the brand was shared."""

    type: Literal["post_shared"] = "post_shared"


class PostCommented(SocialFields):
    """A post of the brand was commented on."""

    type: Literal["post_commented"] = "post_commented"


class BrandMentioned(SocialFields):
    """The customer mentioned the brand."""

    type: Literal["brand_mentioned"] = "brand_mentioned"


class BrandTagged(SocialFields):
    """The customer tagged the brand."""

    type: Literal["brand_tagged"] = "brand_tagged"


class PostReplied(SocialFields):
    """The customer replied to a post of the brand."""

    type: Literal["post_replied"] = "post_replied"


class AccountFollowed(SocialFields):
    """The customer followed the brand's account."""

    type: Literal["account_followed"] = "account_followed"


class AccountUnfollowed(SocialFields):
    """The customer stopped following the brand's account."""

    type: Literal["account_unfollowed"] = "account_unfollowed"


class AudienceCounted(SocialFields):
    """The followers of the brand's account were counted; `customer_id` is the account, the latest count wins."""

    by_customer = False
    type: Literal["audience_counted"] = "audience_counted"
    followers: Followers


ClickstreamEvent = (
    PageViewed
    | ProductListViewed
    | ProductViewed
    | ProductClicked
    | ProductsSearched
    | LinkClicked
    | ApplicationInstalled
    | ApplicationOpened
    | ApplicationUninstalled
    | StoreEntered
    | ExperimentViewed
)
CartEvent = (
    ProductAdded
    | ProductRemoved
    | CartUpdated
    | CartCleared
    | CartViewed
    | CheckoutStarted
    | CheckoutStepCompleted
    | PaymentInfoEntered
    | OrderCompleted
    | OrderCancelled
    | OrderRefunded
    | IdentityLinked
)
EmailEvent = (
    EmailSent | EmailDelivered | EmailOpened | EmailLinkClicked | EmailBounced | EmailMarkedAsSpam | EmailUnsubscribed
)
SocialEvent = (
    PostLiked
    | PostShared
    | PostCommented
    | BrandMentioned
    | BrandTagged
    | PostReplied
    | AccountFollowed
    | AccountUnfollowed
    | AudienceCounted
)
Event = ClickstreamEvent | CartEvent | EmailEvent | SocialEvent

# The one place that says which topic an event belongs to: topic suffix -> classes.
EVENTS_OF_TOPIC: dict[str, tuple[type[EventFields], ...]] = {
    "clickstream.v1": get_args(ClickstreamEvent),
    "cart.v1": get_args(CartEvent),
    "email.v1": get_args(EmailEvent),
    "social.v1": get_args(SocialEvent),
}


@dataclass(frozen=True, slots=True)
class EventType:
    """One line of the event registry; `topic` is the suffix, such as cart.v1, `actor` who acts unless a machine did."""

    name: str
    topic: str
    model: type[EventFields]
    actor: Actor


def type_of(model: type[EventFields]) -> str:
    """Return the event type's name of a class."""
    return str(model.model_fields["type"].default)


def _event_type(topic: str, model: type[EventFields]) -> EventType:
    return EventType(type_of(model), topic, model, "customer" if model.by_customer else "brand")


EVENT_TYPES: dict[str, EventType] = {
    event_type.name: event_type
    for topic, models in EVENTS_OF_TOPIC.items()
    for event_type in (_event_type(topic, model) for model in models)
}
