"""The score model: its file, its errors, its arithmetic."""

from math import exp, floor

import pytest

from streams.engagement.decay import DecayedSum
from streams.engagement.kinds import KINDS
from streams.engagement.scoring import ScoreModel
from streams.errors import InvalidSettings

DAY_MS = 86_400_000
CHANNEL = 'cap = 25\nhalf_life = "36h"\nk = 1.5\n'
VALID = "".join(
    f"[{channel}]\n{CHANNEL}[{channel}.weights]\n" for channel in ("clickstream", "cart", "email", "social")
)

# The contract's table, written down a second time.
TABLE = {
    "clickstream": """30 2 20
        page_viewed 1, product_list_viewed 1, link_clicked 1, product_viewed 2, product_clicked 2, products_searched 2,
        application_opened 2, application_installed 6, store_entered 8, application_uninstalled -15""",
    "cart": """35 7 30
        product_added 5, cart_viewed 2, product_removed -1, checkout_started 8, checkout_step_completed 4,
        payment_info_entered 6, order_completed 20, order_cancelled -10, order_refunded -10""",
    "email": """20 14 15
        email_opened 2, email_link_clicked 6, email_unsubscribed -15, email_marked_as_spam -20""",
    "social": """15 14 15
        post_liked 2, post_replied 5, post_commented 5, post_shared 6, brand_mentioned 6, brand_tagged 6,
        account_followed 5, account_unfollowed -8""",
}
HALF_LIFE = "half_life must be whole hours or days up to a year, such as 36h or 7d, not "
MISTAKES = [
    ("[cart]", "[cart", "not TOML"),
    ("cap = 25", "cap = -1", r"\[clickstream\]: cap must be from 0 to 100, not -1"),
    ("cap = 25", "cap = 101", "cap must be from 0 to 100"),
    ("cap = 25", "cap = nan", "cap must be a number, not nan"),
    ("cap = 25", "cap = true", "cap must be a number, not True"),
    ("cap = 25", 'cap = "25"', "cap must be a number, not '25'"),
    ("k = 1.5", "k = 0", "k must be greater than 0, not 0"),
    ("k = 1.5", "", r"\[clickstream\]: k is missing"),
    ("k = 1.5", "k = 1.5\nkk = 2", "kk is unknown; known are cap, half_life, k, weights"),
    ('"36h"', '"36"', HALF_LIFE + "36"),
    ('"36h"', '"90m"', HALF_LIFE + "90m"),
    ('"36h"', '"366d"', HALF_LIFE + "366d"),
    ('"36h"', "36", HALF_LIFE + "36"),
    ("[email.weights]", "[email.weights]\npage_viewed = 1", r"\[email\]: page_viewed is no event type of this channel"),
    ("[email.weights]", "[email.weights]\nemail_opened = 1001", "weight of email_opened must be from -1000 to 1000"),
    ("[email.weights]", "[email.weights]\nemail_opened = -1001", "weight of email_opened must be from -1000 to 1000"),
    ("[email.weights]", '[email.weights]\nemail_opened = "1"', "email_opened must be a number"),
    ("[email.weights]\n", "weights = 1\n", r"\[email\]: weights must be a table"),
    ("[email.weights]\n", "weights = {}\n[post]\n", "score model mine: post is unknown"),
    (VALID, "email = 1\ncart = 2\nsocial = 3\nclickstream = 4", r"\[clickstream\]: must be a table"),
    (VALID, "", "score model mine: clickstream is missing"),
]


@pytest.mark.parametrize(
    ("was", "now"),
    [
        ("cap = 25", "cap = 100"),
        ("cap = 25", "cap = 0"),
        ('"36h"', '"1h"'),
        ('"36h"', '"365d"'),
        ("[email.weights]", "[email.weights]\nemail_opened = 1000"),
        ("[email.weights]", "[email.weights]\nemail_opened = -1000"),
    ],
)
def test_a_model_at_its_limits_is_read(was: str, now: str) -> None:
    """What lies beyond them is refused, not they."""
    assert ScoreModel.from_toml(VALID.replace(was, now).encode(), "mine").version.startswith("mine-")


def test_the_default_model_is_the_contracts_table() -> None:
    """Caps, half-lives, k and every weight; nothing else weighs anything."""
    model = ScoreModel.default()
    weights = {}
    for index, (name, row) in enumerate(TABLE.items()):
        figures, listed = row.split("\n", 1)
        cap, days, k = (int(figure) for figure in figures.split())
        assert model.channels[index] == (cap, days * DAY_MS, k), name
        for event_type, weight in (entry.split() for entry in listed.replace("\n", " ").split(",")):
            weights[event_type] = (index, days * DAY_MS, int(weight))
    assert model.weights == weights
    assert sum(channel.cap for channel in model.channels) == 100


def test_the_version_is_the_name_and_a_hash_of_the_content() -> None:
    """A changed byte, even of a comment, is another version."""
    assert ScoreModel.default().version.startswith("default-")
    first, second = (ScoreModel.from_toml(content.encode(), "mine").version for content in (VALID, VALID + "# x"))
    assert first != second
    assert len(first) == len("mine-") + 8


def test_numbers_may_be_broken_and_half_lives_hours_or_days() -> None:
    """36h is a day and a half; a weight of 0 is no weight; k and weights may have decimals."""
    text = VALID.replace("[email.weights]\n", "[email.weights]\nemail_opened = 0.5\nemail_sent = 0\n")
    model = ScoreModel.from_toml(text.encode(), "mine")
    assert model.channels[0] == (25, 36 * 3_600_000, 1.5)
    assert model.weights == {"email_opened": (2, 36 * 3_600_000, 0.5)}


@pytest.mark.parametrize(("right", "wrong", "message"), MISTAKES)
def test_a_bad_file_is_refused_with_the_place(right: str, wrong: str, message: str) -> None:
    """Every mistake stops the start and names itself."""
    with pytest.raises(InvalidSettings, match=message):
        ScoreModel.from_toml(VALID.replace(right, wrong, 1).encode(), "mine")


def test_a_file_that_is_no_text_is_refused() -> None:
    """Bytes that are not UTF-8 are not TOML."""
    with pytest.raises(InvalidSettings, match="not TOML"):
        ScoreModel.from_toml(b"\xff", "mine")


def test_contributions_are_rounded_apart_and_added_as_integers() -> None:
    """cap x (1 - exp(-v/k)) in hundredths, rounded half up, per channel; a negative sum and an absent one give 0."""
    click, email = DecayedSum(2 * DAY_MS), DecayedSum(14 * DAY_MS)
    click.add(0, 7)
    email.add(0, -20)
    score = ScoreModel.default().score([click, None, email, None], 0)
    contribution = floor(100 * 30 * (1 - exp(-7 / 20)) + 0.5)
    assert score.contributions == {"clickstream": contribution, "cart": 0, "email": 0, "social": 0}
    assert score.hundredths == contribution
    assert score.raw == {"clickstream": 7.0, "cart": 0.0, "email": -20.0, "social": 0.0}


def test_the_score_never_exceeds_the_caps() -> None:
    """Endless activity reaches 100 and stays there."""
    sums: list[DecayedSum | None] = []
    for channel in ScoreModel.default().channels:
        total = DecayedSum(channel.half_life_ms)
        total.add(0, 1e9)
        sums.append(total)
    assert ScoreModel.default().score(sums, 0).hundredths == 10_000


def test_a_sum_of_another_half_life_is_not_read() -> None:
    """After a change of the model a channel's old windows mean nothing."""
    total = DecayedSum(3 * DAY_MS)
    total.add(0, 7)
    assert ScoreModel.default().score([total, None, None, None], 0).hundredths == 0


def test_every_weighed_type_is_of_its_channel() -> None:
    """The model and the table of types agree on who belongs where."""
    assert all(KINDS[name].topic == channel for name, (channel, _, _) in ScoreModel.default().weights.items())
