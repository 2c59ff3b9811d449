"""The core's table of event types agrees with the contract."""

from models.events import EVENT_TYPES
from streams.engagement.kinds import CHANNELS, KINDS, TYPE_OF_CODE

WITHOUT_PROFILE = {"audience_counted"}


def test_every_type_that_makes_a_profile_is_known_with_its_topic() -> None:
    """A type added to the contract must be added here too."""
    contract = {name: of.topic.removesuffix(".v1") for name, of in EVENT_TYPES.items() if name not in WITHOUT_PROFILE}
    assert {name: CHANNELS[kind.topic] for name, kind in KINDS.items()} == contract


def test_codes_are_those_stored_already() -> None:
    """Codes stand in stored profiles: the table may grow at its end, and change in no other way."""
    stored = {"page_viewed": 0, "experiment_viewed": 10, "product_added": 11, "identity_linked": 22, "email_sent": 23,
              "email_unsubscribed": 29, "post_liked": 30, "account_unfollowed": 37}  # fmt: skip
    assert {name: KINDS[name].code for name in stored} == stored
    assert [KINDS[name].code for name in TYPE_OF_CODE] == list(range(len(TYPE_OF_CODE)))


def test_pages_are_the_contracts() -> None:
    """Pages = page_viewed + product_viewed + product_list_viewed."""
    assert {name for name, kind in KINDS.items() if kind.page} == {
        "page_viewed",
        "product_viewed",
        "product_list_viewed",
    }
