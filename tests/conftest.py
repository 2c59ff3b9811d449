"""Fixtures of all suites. Unit and property tests touch no broker: these fixtures start only what a test asks for."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.brokers import Brokers, Names


@pytest.fixture(scope="session")
def brokers() -> Iterator["Brokers"]:
    """One Kafka and one Redis for the whole session: do not break these, ask for `own_brokers` to break things."""
    from tests.support.brokers import run_brokers

    with run_brokers() as running:
        yield running


@pytest.fixture(scope="session")
def kafka_bootstrap(brokers: "Brokers") -> str:
    return brokers.bootstrap


@pytest.fixture(scope="session")
def redis_url(brokers: "Brokers") -> str:
    return brokers.redis_url


@pytest.fixture
def own_brokers() -> Iterator["Brokers"]:
    """Brokers of one test alone, which may kill, freeze and restart them."""
    from tests.support.brokers import run_brokers

    with run_brokers() as running:
        yield running


@pytest.fixture
def names() -> "Names":
    from tests.support.brokers import Names

    return Names.fresh()
