"""RedisStore: the state of all tasks in one Redis, each commit atomic and chained to the one before by a random id."""

from collections.abc import Collection, Mapping, Sequence
from itertools import islice
from typing import Any

from redis.asyncio.connection import AbstractConnection
from xxhash import xxh3_64_intdigest

from streams.errors import Fenced
from streams.processing.ports import Accumulated, Commit, Stored
from streams.stores import keys
from streams.stores.commands import commit_commands, hash_commands, integer, integers, pairs, read_deadlines, text
from streams.stores.deployment import SCHEMA_FIELD, settled
from streams.stores.entry import enter
from streams.stores.trail import Trail, changed_since
from streams.stores.wire import Command, Refused, Wire, ask, transact

LOAD_CUSTOMERS_MAX = 2_000
PAGE = 10_000


class RedisStore:
    """StateStore on Redis >= 6.2 (or Valkey); one Redis, not a cluster.

    url: redis://, rediss:// (TLS) or unix://, with user, password and database; redis-py's connection options may
    stand in it or in `options`. Times in ms: timeout_ms bounds one attempt, retry_ms all attempts of one call,
    which then raises StoreUnavailable.
    """

    def __init__(
        self,
        url: str,
        app_id: str,
        *,
        timeout_ms: int = 3_000,
        connect_timeout_ms: int = 1_000,
        retry_ms: int = 5_000,
        connections_max: int = 8,
        **options: Any,
    ) -> None:
        self._app_id = keys.check_app_id(app_id)
        self._wire = Wire(
            url,
            limit=connections_max,
            timeout_ms=timeout_ms,
            connect_timeout_ms=connect_timeout_ms,
            retry_ms=retry_ms,
            options=options,
        )
        self._keys: dict[int, keys.TaskKeys] = {}
        self._trails: dict[int, Trail] = {}

    def _of(self, partition: int) -> keys.TaskKeys:
        found = self._keys.get(partition)
        if found is None:
            found = self._keys[partition] = keys.TaskKeys(self._app_id, partition)
        return found

    # --- the deployment

    async def check(self) -> None:
        await enter(self._wire, self._app_id)

    async def deployment(self, wanted: Mapping[str, str]) -> int:
        key = keys.deployment(self._app_id)

        async def operation(connection: AbstractConnection) -> int:
            _, flat = await ask(connection, ("WATCH", key), ("HGETALL", key))
            stored = {name.decode(): value.decode() for name, value in pairs(flat)}
            now = settled(stored, wanted)
            if await transact(connection, hash_commands(key, now) if stored != now else []) is None:
                raise Refused("another worker wrote the deployment meanwhile")
            return int(now[SCHEMA_FIELD])

        return await self._wire.run(operation)

    # --- reading

    async def ver(self, partition: int) -> str | None:
        main = self._of(partition).main

        async def operation(connection: AbstractConnection) -> str | None:
            (ver,) = await ask(connection, ("HGET", main, "ver"))
            return text(ver)

        return await self._wire.run(operation)

    async def read(self, partition: int) -> Stored | None:
        main = self._of(partition).main

        async def operation(connection: AbstractConnection) -> Stored | None:
            ((ver, meta),) = await ask(connection, ("HMGET", main, "ver", "meta"))
            return None if ver is None else Stored(ver.decode(), meta or b"")

        return await self._wire.run(operation)

    async def load(
        self, partition: int, vers: Collection[str], customers: Sequence[str]
    ) -> dict[str, tuple[bytes | None, bytes | None]]:
        loaded: dict[str, tuple[bytes | None, bytes | None]] = {}
        rest = iter(customers)
        while chunk := list(islice(rest, LOAD_CUSTOMERS_MAX)):
            await self._load_chunk(partition, vers, chunk, loaded)
        return loaded

    async def _load_chunk(
        self,
        partition: int,
        vers: Collection[str],
        customers: Sequence[str],
        loaded: dict[str, tuple[bytes | None, bytes | None]],
    ) -> None:
        states = self._of(partition).states
        commands: dict[int, list[str | bytes]] = {}
        names: dict[int, list[str]] = {}
        for customer in customers:
            raw = customer.encode()
            bucket = xxh3_64_intdigest(raw) & 255
            command = commands.get(bucket)
            if command is None:
                command = commands[bucket] = ["HMGET", states[bucket]]
                names[bucket] = []
            command.append(b"h:" + raw)
            command.append(b"c:" + raw)
            names[bucket].append(customer)
        replies = await self._guarded(partition, vers, [tuple(command) for command in commands.values()])
        for members, values in zip(names.values(), replies, strict=True):
            pairs = iter(values)
            loaded.update(zip(members, zip(pairs, pairs, strict=True), strict=True))

    async def _guarded(self, partition: int, vers: Collection[str], commands: list[Command]) -> list[Any]:
        """Read in one transaction with ver; Fenced unless it is one of `vers`."""
        main = self._of(partition).main

        async def operation(connection: AbstractConnection) -> list[Any]:
            return await _read(connection, ("HGET", main, "ver"), *commands)

        ver, *replies = await self._wire.run(operation)
        if text(ver) not in vers:
            raise Fenced(f"task {partition}: found commit {text(ver)} where {' or '.join(vers)} was expected")
        return replies

    async def timers(
        self, partition: int, vers: Collection[str], after_ms: int, until_ms: int, limit: int
    ) -> list[tuple[str, int]]:
        return await self._range(partition, vers, self._of(partition).timers, (after_ms, until_ms, limit))

    async def sessions(
        self, partition: int, vers: Collection[str], after_ms: int, until_ms: int, limit: int
    ) -> list[tuple[str, int]]:
        return await self._range(partition, vers, self._of(partition).sessions, (after_ms, until_ms, limit))

    async def _range(
        self, partition: int, vers: Collection[str], key: str, span: tuple[int, int, int]
    ) -> list[tuple[str, int]]:
        after_ms, until_ms, limit = span
        command = ("ZRANGE", key, after_ms, until_ms, "BYSCORE", "LIMIT", 0, limit, "WITHSCORES")
        (flat,) = await self._guarded(partition, vers, [command])
        return read_deadlines(flat)

    # --- writing

    async def claim(self, partition: int, new: str) -> Stored:
        of = self._of(partition)
        trail = Trail(of, new)
        page: list[Command] = [
            ("HSET", of.main, "ver", new),
            ("HGET", of.main, "meta"),
            ("ZRANGE", of.timers, 0, PAGE - 1, "WITHSCORES"),
            ("ZRANGE", of.sessions, 0, PAGE - 1, "WITHSCORES"),
            ("GET", of.outputs),
            ("HGETALL", of.accumulators),
            *trail.begin(),
        ]
        before = ""

        async def operation(connection: AbstractConnection) -> list[Any]:
            nonlocal before
            _, ver = await ask(connection, ("WATCH", of.main), ("HGET", of.main, "ver"))
            if ver is None:
                raise Fenced(f"task {partition}: its state is gone, there is nothing to claim")
            # An earlier attempt whose reply was lost may have written `new` already.
            before = before if ver == new.encode() else ver.decode()
            replies = await transact(connection, page)
            if replies is None:
                raise Refused("the task changed while it was claimed")
            return replies

        _, meta, timers, sessions, outputs, accumulators, *_ = await self._wire.run(operation)
        self._trails[partition] = trail
        return Stored(
            ver=before,
            meta=meta or b"",
            timers=read_deadlines(timers),
            sessions=read_deadlines(sessions),
            timers_complete=len(timers) < 2 * PAGE,
            sessions_complete=len(sessions) < 2 * PAGE,
            outputs=outputs or b"",
            accumulators=integers(accumulators),
        )

    async def commit(self, commit: Commit) -> None:
        of = self._of(commit.partition)
        known = trail = self._trails.get(commit.partition)
        opening: list[Command] = []
        if commit.base is None:
            # Leftovers without `m` belong to no state: a first start folds onto nothing.
            opening.append(("UNLINK", *of.besides_main()))
        if trail is None or commit.base is None or trail.ver != commit.base:
            trail = Trail(of, commit.base)
            opening.extend(trail.begin())
        step = trail.step(commit)
        commands = [*opening, *commit_commands(of, commit), *step.commands]

        async def operation(connection: AbstractConnection) -> bool:
            return await _move(connection, of.main, commit, commands)

        done_before = await self._wire.run(operation)
        if done_before and known is not None and known.ver == commit.new:
            # Asked for again after it was done and noted: its opening never ran, the trail is as it was.
            return
        trail.advance(step)
        self._trails[commit.partition] = trail

    # --- the metrics publisher

    async def accumulators(self, partition: int) -> dict[str, int]:
        key = self._of(partition).accumulators

        async def operation(connection: AbstractConnection) -> dict[str, int]:
            (flat,) = await ask(connection, ("HGETALL", key))
            return integers(flat)

        return await self._wire.run(operation)

    async def accumulators_changed(self, partition: int, since: str | None) -> Accumulated:
        of = self._of(partition)

        async def operation(connection: AbstractConnection) -> Accumulated:
            while since is not None:
                ver, trail = await _read(connection, ("HGET", of.main, "ver"), ("HGETALL", of.changed))
                names = changed_since(pairs(trail), since)
                if names is None:
                    break
                again, values = await _read(
                    connection, ("HGET", of.main, "ver"), ("HMGET", of.accumulators, "", *names)
                )
                if again == ver:
                    fields = zip(names, values[1:], strict=True)
                    return Accumulated(text(ver), {name: integer(value) for name, value in fields}, whole=False)
            ver, flat = await _read(connection, ("HGET", of.main, "ver"), ("HGETALL", of.accumulators))
            return Accumulated(text(ver), {**integers(flat)}, whole=True)

        return await self._wire.run(operation)

    async def published(self) -> dict[str, bytes]:
        key = keys.published(self._app_id)

        async def operation(connection: AbstractConnection) -> dict[str, bytes]:
            (flat,) = await ask(connection, ("HGETALL", key))
            return {name.decode(): value for name, value in pairs(flat)}

        return await self._wire.run(operation)

    async def published_field(self, field: str) -> bytes | None:
        key = keys.published(self._app_id)

        async def operation(connection: AbstractConnection) -> bytes | None:
            (value,) = await ask(connection, ("HGET", key, field))
            return None if value is None else bytes(value)

        return await self._wire.run(operation)

    async def write_published(self, vers: Collection[str], changes: Mapping[str, bytes | None]) -> None:
        if not changes:
            return
        main, key = self._of(0).main, keys.published(self._app_id)
        commands = hash_commands(key, changes)

        async def operation(connection: AbstractConnection) -> None:
            while True:
                _, ver = await ask(connection, ("WATCH", main), ("HGET", main, "ver"))
                if text(ver) not in vers:
                    raise Fenced(f"task 0: found commit {text(ver)} where {' or '.join(vers)} was expected")
                if await transact(connection, commands) is not None:
                    return

        await self._wire.run(operation)

    async def close(self) -> None:
        await self._wire.close()


async def _read(connection: AbstractConnection, *commands: Command) -> list[Any]:
    """Read several keys as of one moment."""
    replies = await transact(connection, commands)
    if replies is None:
        raise Refused("the transaction was aborted, though nothing was watched")
    return replies


async def _move(connection: AbstractConnection, main: str, commit: Commit, commands: list[Command]) -> bool:
    """Apply a commit where the stored ver is its base; True where it was done before; else Fenced."""
    while True:
        _, ver = await ask(connection, ("WATCH", main), ("HGET", main, "ver"))
        stored = text(ver)
        if stored == commit.new:
            await ask(connection, ("UNWATCH",))
            return True
        if stored != commit.base:
            raise Fenced(f"task {commit.partition}: found commit {stored} where {commit.base} was expected")
        if await transact(connection, commands) is not None:
            return False
