"""Settings: every one has a name, bad ones stop the start with it, and what contradicts is refused."""

from pathlib import Path

import pytest

from streams.errors import InvalidSettings
from streams.settings import Settings, accepts, gather, mask, names, read_dotenv

CONTRACT = {
    "KAFKA_BOOTSTRAP": "127.0.0.1:9092",
    "REDIS_URL": "redis://127.0.0.1:6379/0",
    "APP_ID": "pulseline",
    "TOPIC_PREFIX": "engagement",
    "PARTITIONS": 16,
    "CART_STEPS": (("15m", 900_000), ("1h", 3_600_000), ("24h", 86_400_000)),
    "CART_EXPIRY": 30 * 86_400_000,
    "ORDER_SCOPE": "customer",
    "RECOVERY_WINDOW": 7 * 86_400_000,
    "TRIGGER_MAX_STALENESS": 6 * 3_600_000,
    "TRIGGER_COOLDOWN": 0,
    "MIN_CART_VALUE_MINOR": 0,
    "LATENESS": 10_000,
    "PUNCTUATION": True,
    "SCORE_MODEL": None,
    "SCORE_MIN_DELTA": 0.5,
    "METRICS_INTERVAL": 5_000,
    "COMMIT_INTERVAL": 500,
    "PROCESSING_GUARANTEE": "at_least_once",
    "TOPIC_TIMESTAMPS": "LogAppendTime",
    "WEB_HOST": "127.0.0.1",
    "WEB_PORT": 8080,
    "LOG_LEVEL": "INFO",
    "LOG_FORMAT": "console",
}


def settings(**variables: str) -> Settings:
    return Settings.from_environ({f"PULSELINE_{name}": text for name, text in variables.items()})


def refusal(**variables: str) -> str:
    with pytest.raises(InvalidSettings) as caught:
        settings(**variables)
    return str(caught.value)


@pytest.mark.parametrize(("name", "default"), CONTRACT.items())
def test_every_setting_of_the_contract_exists_with_its_default(name, default):
    """A name written in the public contract can be set, and has the contract's default."""
    assert getattr(settings(), names()[name]) == default


@pytest.mark.parametrize(
    ("text", "ms"), [("15m", 900_000), ("500ms", 500), ("24h", 86_400_000), ("30d", 2_592_000_000), ("1200", 1_200)]
)
def test_durations_are_read_in_all_units(text, ms):
    """A duration may be written in ms, s, m, h, d or as a bare number of ms."""
    assert settings(RECOVERY_WINDOW=text, CART_EXPIRY="365d").recovery_window_ms == ms


def test_steps_are_named_by_the_largest_unit_that_divides_them():
    """Names of steps are part of trigger ids, so they do not depend on how the setting was written."""
    assert settings(CART_STEPS="60s,90s,1440m", LATENESS="2s").cart_steps == (
        ("1m", 60_000),
        ("90s", 90_000),
        ("24h", 86_400_000),
    )


def test_an_unknown_name_stops_the_start_and_the_likely_one_is_offered():
    """A mistyped setting is never ignored."""
    message = refusal(LATENES="2s")
    assert "PULSELINE_LATENES is not a setting" in message
    assert "PULSELINE_LATENESS?" in message


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("LATENESS", "soon"),
        ("LATENESS", "-1"),
        ("LATENESS", "1.5s"),
        ("PARTITIONS", "0"),
        ("PARTITIONS", "many"),
        ("KAFKA_BOOTSTRAP", "kafka"),
        ("REDIS_URL", "http://cache"),
        ("APP_ID", "a{b}"),
        ("ORDER_SCOPE", "shop"),
        ("SCORE_MIN_DELTA", "nan"),
        ("SCORE_MIN_DELTA", "-0.5"),
        ("PUNCTUATION", "maybe"),
        ("WEB_PORT", "65536"),
        ("COMMIT_INTERVAL", "0"),
        ("CART_STEPS", "0s,15m"),
        ("CART_STEPS", "15m,,1h"),
        ("LOG_LEVEL", "loud"),
        ("PROCESSING_GUARANTEE", "perhaps_once"),
        ("MIN_CART_VALUE_MINOR", "-1"),
    ],
)
def test_a_bad_value_is_refused_by_name_with_what_is_accepted(name, text):
    """The message names the variable and says what it takes."""
    message = refusal(**{name: text})
    assert f"PULSELINE_{name}" in message
    assert accepts(names()[name]) in message


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"CART_STEPS": "1h,15m"}, "CART_STEPS"),
        ({"CART_STEPS": "15m,15m"}, "CART_STEPS"),
        ({"CART_STEPS": "15m,31d"}, "CART_EXPIRY"),
        ({"CART_STEPS": "15s,30s"}, "LATENESS"),
        ({"COMMIT_INTERVAL": "1001ms", "MAX_POLL_INTERVAL": "5s"}, "COMMIT_INTERVAL"),
        ({"PARTITIONS": "2", "WORKERS": "3"}, "WORKERS"),
        ({"PROCESSING_GUARANTEE": "exactly_once", "COMMIT_INTERVAL": "999ms"}, "COMMIT_INTERVAL"),
    ],
)
def test_settings_that_contradict_each_other_stop_the_start(variables, named):
    """Each contradiction of the architecture is refused by name."""
    assert named in refusal(**variables)


@pytest.mark.parametrize(
    "variables",
    [
        {"CART_STEPS": "15m,30d"},
        {"CART_STEPS": "30s", "LATENESS": "10s"},
        {"COMMIT_INTERVAL": "1s", "MAX_POLL_INTERVAL": "5s"},
        {"PARTITIONS": "3", "WORKERS": "3"},
        {"PROCESSING_GUARANTEE": "exactly_once", "COMMIT_INTERVAL": "1s"},
    ],
)
def test_the_boundary_of_each_contradiction_is_allowed(variables):
    """What is just not a contradiction starts."""
    assert settings(**variables) is not None


def test_transactions_commit_each_second_unless_told_otherwise():
    """The default commit interval is 1 s with exactly_once and 500 ms without."""
    assert settings(PROCESSING_GUARANTEE="exactly_once").commit_interval_ms == 1_000
    assert settings().commit_interval_ms == 500


def test_what_is_unwise_but_possible_is_a_warning():
    """A cart that may expire within the recovery window, and many tasks a worker with transactions, are warned of."""
    assert settings().warnings() == []
    assert "CART_EXPIRY" in settings(CART_EXPIRY="7d").warnings()[0]
    assert "8 tasks" in settings(PROCESSING_GUARANTEE="exactly_once").warnings()[0]
    assert settings(PROCESSING_GUARANTEE="exactly_once", WORKERS="2").warnings() == []


def test_flags_win_over_the_environment_over_dotenv_over_the_stack():
    """The nearest source wins, and its name is remembered."""
    found = gather(
        names(),
        environ={"PULSELINE_APP_ID": "environment", "PULSELINE_PARTITIONS": "8", "HOME": "/"},
        dotenv={"PULSELINE_APP_ID": "dotenv", "PULSELINE_PARTITIONS": "4", "PULSELINE_LATENESS": "3s", "OTHER": "x"},
        stack={"PULSELINE_KAFKA_BOOTSTRAP": "localhost:1", "PULSELINE_LATENESS": "1s"},
        overrides={"APP_ID": "flag"},
    )
    assert found == {
        "APP_ID": ("flag", "flag"),
        "PARTITIONS": ("8", "environment"),
        "LATENESS": ("3s", ".env"),
        "KAFKA_BOOTSTRAP": ("localhost:1", "stack"),
    }


def test_an_empty_variable_counts_as_absent():
    """Compose files pass variables that are not set as empty ones."""
    assert settings(SCORE_MODEL="", LATENESS="").lateness_ms == 10_000


def test_names_of_the_test_suite_are_no_settings():
    """PULSELINE_TEST_* is left to the tests."""
    assert settings(TEST_BROKERS="local") == settings()


def test_settings_survive_the_way_through_an_environment():
    """What a child process is given makes the same settings."""
    given = settings(CART_STEPS="15s,90s,24h", LATENESS="2s", PUNCTUATION="off", REDIS_URL="redis://:pw@h:1/2")
    assert Settings.from_environ(given.environ()) == given


def test_passwords_are_not_printed():
    """The printable form hides what a URL carries."""
    shown = settings(REDIS_URL="redis://user:geheim@cache:6379/1").masked()
    assert shown["REDIS_URL"] == "redis://user:***@cache:6379/1"
    assert "geheim" not in str(shown)
    assert mask("redis://cache:6379/0") == "redis://cache:6379/0"
    assert "geheim" not in refusal(REDIS_URL="http://user:geheim@cache")


def test_a_dotenv_file_is_read_as_people_write_it(tmp_path: Path):
    """Comments, quotes, export and blank lines."""
    path = tmp_path / ".env"
    path.write_text(
        "# a comment\n\nexport PULSELINE_APP_ID=\"shop one\"\nPULSELINE_LATENESS = 3s # why\nOTHER='a # b'\nEMPTY=\n"
    )
    assert read_dotenv(path) == {
        "PULSELINE_APP_ID": "shop one",
        "PULSELINE_LATENESS": "3s",
        "OTHER": "a # b",
        "EMPTY": "",
    }
    assert read_dotenv(tmp_path / "absent") == {}
    path.write_text("PULSELINE_APP_ID\n")
    with pytest.raises(InvalidSettings, match="Line 1"):
        read_dotenv(path)


def test_settings_cannot_be_changed():
    """One frozen record."""
    with pytest.raises(ValueError, match="frozen"):
        settings().partitions = 3  # type: ignore[misc]


def test_topics_are_named_by_prefix_and_role():
    """topic() gives registered topics only."""
    assert settings(TOPIC_PREFIX="shop").topic("cart") == "shop.cart.v1"
    with pytest.raises(KeyError):
        settings().topic("carts")


def test_the_rules_of_the_core_are_those_of_the_settings(tmp_path: Path):
    """Cart policy and score model reach the core as set; an unusable model is refused by name."""
    policy = settings(CART_STEPS="1m,2m", LATENESS="2s", ORDER_SCOPE="cart", MIN_CART_VALUE_MINOR="500").cart_policy()
    assert (policy.steps, policy.order_scope, policy.min_cart_value_minor) == (
        (("1m", 60_000), ("2m", 120_000)),
        "cart",
        500,
    )
    assert settings().rules().cart == settings().cart_policy()
    broken = tmp_path / "model.toml"
    broken.write_text("weights = ")
    with pytest.raises(InvalidSettings, match="SCORE_MODEL"):
        settings(SCORE_MODEL=str(broken)).rules()
    with pytest.raises(InvalidSettings, match="SCORE_MODEL"):
        settings(SCORE_MODEL=str(tmp_path / "absent.toml")).rules()
