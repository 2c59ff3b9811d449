"""The `customers` table of Faust: the profiles of the tasks, read as a table.

Its store comes from a redis:// URL (entry point `faust.stores`). It has no changelog: only commits write state, so
every write here raises ReadOnlyTable. Agents, pages and Faust's tooling read it; the hot path uses the maps below it.
"""

from collections.abc import Callable, Collection, ItemsView, Iterator, KeysView, ValuesView
from typing import Any, NoReturn, cast

import faust
import redis
from faust.stores import base
from redis.backoff import NoBackoff
from redis.retry import Retry
from yarl import URL

from streams.engagement.profile import Profile
from streams.engagement.scoring import ScoreModel
from streams.errors import ReadOnlyTable, StoreUnavailable
from streams.stores.keys import TaskKeys, check_app_id, partition_of

SCHEMES = ("redis", "rediss", "unix")
READ_TIMEOUT_S = 0.5
View = dict[str, Any]


class _ReadOnly:
    """Refuses whatever would change a mapping."""

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise ReadOnlyTable(
            "the customers table is read-only: state is written by commits alone, together with the offsets it was "
            "folded from. To change a customer send an event; for data of your own use a table with another store"
        )

    __setitem__ = __delitem__ = __ior__ = _refuse
    pop = popitem = setdefault = update = raw_update = clear = apply_changelog_batch = _refuse


class Store(_ReadOnly, base.Store[str, View]):
    """Profiles from the memory of this worker's tasks; one not there is read from Redis, and the caller blocks for it.

    Iteration and length cover what is in memory. A value is a view (see `Profile.view`), made anew by each read. Raises
    KeyError where Redis has no such customer, StoreUnavailable where it does not answer within a second or two. Until
    `attach` all comes from Redis. Options of the table: `app_id` and `partitions`, else Faust's own, and
    `redis`, redis-py's options besides the URL.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        options = self.options or {}
        self._app_id = check_app_id(options.get("app_id") or self.app.conf.id)
        self._partitions = int(options.get("partitions") or self.table.partitions or self.app.conf.topic_partitions)
        self._profile: Callable[[str], Profile | None] = lambda _: None
        self._customers: Callable[[], Collection[str]] = tuple
        self._model = ScoreModel.default()
        self._client: redis.Redis | None = None

    def attach(
        self, *, profile: Callable[[str], Profile | None], customers: Callable[[], Collection[str]], model: ScoreModel
    ) -> None:
        """Read a processor's memory: profile(customer id) gives what it holds, customers() the ids it holds."""
        self._profile, self._customers, self._model = profile, customers, model

    def __getitem__(self, customer_id: str) -> View:
        profile = self._profile(customer_id)
        if profile is None:
            hot, cold = self._read(customer_id)
            if hot is None and cold is None:
                raise KeyError(customer_id)
            profile = Profile.unpack(customer_id, hot, cold)
        return profile.view(self._model)

    def __contains__(self, customer_id: object) -> bool:
        if not isinstance(customer_id, str):
            return False
        return self._profile(customer_id) is not None or self._read(customer_id) != (None, None)

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._customers()))

    def __len__(self) -> int:
        return len(self._customers())

    def keys(self) -> KeysView[str]:
        return KeysView(self)

    def values(self) -> ValuesView[View]:
        return ValuesView(self)

    def items(self) -> ItemsView[str, View]:
        return ItemsView(self)

    def copy(self) -> dict[str, View]:
        return dict(self.items())

    def _read(self, customer_id: str) -> tuple[bytes | None, bytes | None]:
        """Packed (hot, cold) as committed last."""
        raw = customer_id.encode()
        key = TaskKeys(self._app_id, partition_of(customer_id, self._partitions)).state(raw)
        try:
            hot, cold = cast(list[bytes | None], self._redis().hmget(key, [b"h:" + raw, b"c:" + raw]))
        except (redis.RedisError, OSError) as error:
            raise StoreUnavailable(f"Redis does not serve the customers table: {type(error).__name__}") from error
        return hot, cold

    def _redis(self) -> redis.Redis:
        if self._client is None:
            url = str(self.url)
            self._client = redis.Redis.from_url(
                # yarl writes unix:/path, redis-py reads unix:///path.
                url if "://" in url else url.replace(":", "://", 1),
                socket_timeout=READ_TIMEOUT_S,
                socket_connect_timeout=READ_TIMEOUT_S,
                retry=Retry(NoBackoff(), 1),  # an idle connection may have been closed meanwhile
                protocol=2,
                **(self.options or {}).get("redis", {}),
            )
        return self._client

    async def on_stop(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def persisted_offset(self, _tp: Any) -> None:
        """None: nothing is recovered from a changelog."""

    def reset_state(self) -> None:
        """Nothing is kept on this machine's disk."""

    async def backup_partition(self, _tp: Any, flush: bool = True, purge: bool = False, keep: int = 1) -> None:
        """Back up nothing: Redis' own snapshots are the backups."""

    def restore_backup(self, _tp: Any, latest: bool = True, backup_id: int = 0) -> None:
        """Restore nothing: Redis' own snapshots are the backups."""

    @property
    def label(self) -> str:
        return f"customers: Redis at {self.url.host or self.url.path}"

    def __repr__(self) -> str:
        # Neither the URL, which may hold a password, nor the contents.
        return f"<{type(self).__name__} {self.label}>"


class Table(_ReadOnly, faust.Table[str, View]):
    """A Faust table over `Store`, without changelog.

    With `faust.App(..., Table=Table)`, `app.Table("customers", store="redis://...")` makes one.
    """

    def attach(
        self, *, profile: Callable[[str], Profile | None], customers: Callable[[], Collection[str]], model: ScoreModel
    ) -> None:
        """Read a processor's memory, see `Store.attach`."""
        cast(Store, self.data).attach(profile=profile, customers=customers, model=model)

    def _new_store_by_url(self, url: str | URL) -> Any:
        if URL(url).scheme not in SCHEMES:
            return super()._new_store_by_url(url)
        # Faust's own way would name the event loop, and so make one where none runs yet, and knows redis:// alone.
        return Store(url, self.app, self, table_name=self.name, options=self.options)

    def __getitem__(self, customer_id: str) -> View:
        self.on_key_get(customer_id)
        return cast(View, self.data[customer_id])

    def __contains__(self, customer_id: object) -> bool:
        return customer_id in self.data

    @property
    def label(self) -> str:
        # Faust's would hold the URL, and so a password.
        return f"{type(self).__name__}: {self.name}"

    @property
    def shortlabel(self) -> str:
        return self.label

    def __repr__(self) -> str:
        return f"<{self.label}>"

    async def on_start(self) -> None:
        await self.add_runtime_dependency(self.data)
