"""The customers table of a real Faust app that was never started: what reads see, and that nothing writes."""

import asyncio
from collections.abc import Callable
from typing import Any

import click
import faust
import pytest
from faust import stores
from faust.cli.tables import tables

from streams.engagement.profile import Profile
from streams.engagement.scoring import ScoreModel
from streams.errors import InvalidSettings, ReadOnlyTable, StoreUnavailable
from streams.stores.table import Store, Table

NOWHERE = "redis://user:sesame@127.0.0.1:1/0"


def make_app() -> faust.App:
    return faust.App("shop", autodiscover=False, Table=Table, topic_partitions=4)


def make_table(app: faust.App, store: str = NOWHERE) -> Any:
    return app.Table("customers", store=store, help="One profile per customer.")


def profile_of(customer_id: str, rev: int) -> Profile:
    profile = Profile(customer_id)
    profile.rev = rev
    return profile


@pytest.fixture
def memory() -> dict[str, Profile]:
    return {customer_id: profile_of(customer_id, rev) for rev, customer_id in enumerate(["a", "b", "c"], 1)}


@pytest.fixture
def table(memory: dict[str, Profile]) -> Table:
    made = make_table(make_app())
    made.attach(profile=memory.get, customers=memory.keys, model=ScoreModel.default())
    return made


def test_reads_show_the_profiles_in_memory(table: Any, memory: dict[str, Profile]) -> None:
    """A value is the customer's view as of now, in every way a mapping can be read."""
    view = memory["a"].view(ScoreModel.default())
    assert view["rev"] == 1
    assert table["a"] == table.get("a") == view
    memory["a"].rev = 9
    assert table["a"]["rev"] == 9
    assert "a" in table
    assert 7 not in table
    assert (list(table), len(table)) == (["a", "b", "c"], 3)
    assert list(table.keys()) == ["a", "b", "c"]
    assert [view["rev"] for view in table.values()] == [9, 2, 3]
    assert {customer_id: view["rev"] for customer_id, view in table.items()} == {"a": 9, "b": 2, "c": 3}
    assert table.copy() == dict(table.items())


def test_iteration_bears_a_changing_memory(table: Table, memory: dict[str, Profile]) -> None:
    """A profile that arrives while somebody iterates does not break the iteration."""
    seen = []
    for customer_id in table:
        seen.append(customer_id)
        memory[f"{customer_id}-new"] = profile_of(customer_id, 1)
    assert seen == ["a", "b", "c"]


def test_who_is_not_in_memory_is_asked_of_redis(table: Table) -> None:
    """Without an answer from Redis a read raises StoreUnavailable, never KeyError, and names no password."""
    for read in (lambda: table["z"], lambda: table.get("z"), lambda: "z" in table):
        with pytest.raises(StoreUnavailable) as caught:
            read()
        assert "sesame" not in str(caught.value)


def set_item(table: Any) -> None:
    table["a"] = {}


def del_item(table: Any) -> None:
    del table["a"]


def merge(table: Any) -> None:
    table |= {"a": {}}


WRITES: list[Callable[[Any], Any]] = [
    set_item,
    del_item,
    merge,
    lambda table: table.pop("a"),
    lambda table: table.pop("z", None),
    lambda table: table.popitem(),
    lambda table: table.update({"a": {}}),
    lambda table: table.update(a={}),
    lambda table: table.raw_update({"a": {}}),
    lambda table: table.setdefault("a", {}),
    lambda table: table.setdefault("z", {}),
    lambda table: table.clear(),
]


@pytest.mark.parametrize("of", [lambda table: table, lambda table: table.data], ids=["table", "store"])
@pytest.mark.parametrize("write", WRITES)
def test_every_write_is_refused(table: Table, memory: dict[str, Profile], write: Any, of: Any) -> None:
    """Whatever would change a mapping raises ReadOnlyTable, says what to do instead, and changes nothing."""
    before = dict(memory)
    with pytest.raises(ReadOnlyTable, match="send an event"):
        write(of(table))
    assert memory == before


def test_the_store_is_found_by_its_url() -> None:
    """Faust resolves redis:// to our store by the installed entry point; TLS and sockets get the same one."""
    assert stores.by_url("redis://127.0.0.1:6379/0") is Store
    app = make_app()
    for number, url in enumerate(("redis://127.0.0.1:1/0", "rediss://127.0.0.1:1/0", "unix:///nowhere/redis.sock")):
        table = app.Table(f"t{number}", store=url)
        assert isinstance(table.data, Store)
        with pytest.raises(StoreUnavailable):
            table["c-1"]


def test_another_store_stays_faust_s_own() -> None:
    """A table of the user's own with another store is Faust's."""
    assert isinstance(make_table(make_app(), "memory://").data, stores.by_url("memory://"))


def test_partitions_and_app_id_come_from_the_app_or_from_options() -> None:
    """The keys are those of the worker: its app id and partitions, or what the options say; braces are refused."""
    app = make_app()
    told: Any = app.Table("x", store=NOWHERE, options={"app_id": "b", "partitions": 64}).data
    plain = make_table(app).data
    assert (plain._app_id, plain._partitions) == ("shop", 4)
    assert (told._app_id, told._partitions) == ("b", 64)
    with pytest.raises(InvalidSettings):
        _ = app.Table("y", store=NOWHERE, options={"app_id": "{b}"}).data


def test_faust_lists_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    """`faust tables` shows it with its help."""
    context: Any = click.Context(click.Command("faust"))
    context.app, context.stdout, context.stderr = make_app(), None, None
    make_table(context.app)
    asyncio.run(tables(context).run())
    shown = capsys.readouterr().out
    assert "customers" in shown
    assert "One profile per customer." in shown


def test_neither_password_nor_customers_are_shown(table: Table) -> None:
    """What Faust logs of a table and its store holds no password and no customer."""
    for text in (repr(table), str(table), table.label, table.shortlabel, table.logger.name):
        assert "sesame" not in text
        assert "'a'" not in text
    store = table.data
    for text in (repr(store), store.label, store.shortlabel):
        assert "sesame" not in text
        assert "'a'" not in text
