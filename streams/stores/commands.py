"""The words RedisStore speaks: a commit as commands, and what replies mean."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from xxhash import xxh3_64_intdigest

from streams.processing.ports import Commit
from streams.stores.keys import TaskKeys
from streams.stores.wire import Command


def commit_commands(of: TaskKeys, commit: Commit) -> list[Command]:
    """The commands of a commit, one or two for each touched key."""
    commands: list[Command] = [
        ("HSET", of.main, "ver", commit.new, "meta", commit.meta),
        ("SET", of.outputs, commit.outputs),
    ]
    commands.extend(_customer_commands(of.states, commit))
    for key, deadlines in ((of.timers, commit.timers), (of.sessions, commit.sessions)):
        commands.extend(_deadline_commands(key, deadlines))
    commands.extend(hash_commands(of.accumulators, commit.accumulators))
    return commands


def _customer_commands(states: list[str], commit: Commit) -> list[Command]:
    writes: dict[int, list[str | bytes]] = {}
    removals: dict[int, list[str | bytes]] = {}
    for prefix, fields in ((b"h:", commit.hot), (b"c:", commit.cold)):
        for customer, packed in fields.items():
            raw = customer.encode()
            bucket = xxh3_64_intdigest(raw) & 255
            verb: Literal["HSET", "HDEL"] = "HDEL" if packed is None else "HSET"
            commands = removals if packed is None else writes
            command = commands.get(bucket)
            if command is None:
                command = commands[bucket] = [verb, states[bucket]]
            command.append(prefix + raw)
            if packed is not None:
                command.append(packed)
    return [tuple(command) for command in (*writes.values(), *removals.values())]


def _deadline_commands(key: str, deadlines: Mapping[str, int | None]) -> list[Command]:
    added: list[str | int] = []
    removed: list[str] = []
    for customer, deadline_ms in deadlines.items():
        if deadline_ms is None:
            removed.append(customer)
        else:
            added += (deadline_ms, customer)
    return _present(("ZADD", key), added) + _present(("ZREM", key), removed)


def hash_commands(key: str, changes: Mapping[str, Any]) -> list[Command]:
    """Set the fields of a hash; None removes one."""
    written: list[Any] = []
    removed: list[str] = []
    for name, value in changes.items():
        if value is None:
            removed.append(name)
        else:
            written += (name, value)
    return _present(("HSET", key), written) + _present(("HDEL", key), removed)


def _present(head: tuple[str, str], arguments: Sequence[str | bytes | int]) -> list[Command]:
    return [(*head, *arguments)] if arguments else []


def pairs(flat: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Field and value of a flat reply, in turn."""
    items = iter(flat)
    return zip(items, items, strict=True)


def read_deadlines(flat: Sequence[bytes]) -> list[tuple[str, int]]:
    """Members of a sorted set with their scores, epoch ms."""
    return [(member.decode(), int(score)) for member, score in pairs(flat)]


def integers(flat: Sequence[bytes]) -> dict[str, int]:
    """A hash of integers."""
    return {name.decode(): int(value) for name, value in pairs(flat)}


def integer(value: bytes | None) -> int | None:
    """An integer that may be absent."""
    return None if value is None else int(value)


def text(value: bytes | None) -> str | None:
    """A text that may be absent."""
    return None if value is None else value.decode()
