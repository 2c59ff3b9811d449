"""What is looked at before a Redis is trusted with state: does it let us in, keep what it is told, allow what we do.

A refusal that a person must mend is AccessDenied or UnsafeStore, with what to do.
"""

import logging
import ssl
from collections.abc import Iterator, Mapping
from typing import Any

from redis import exceptions
from redis.asyncio.connection import AbstractConnection

from streams.errors import AccessDenied, StoreUnavailable, UnsafeStore
from streams.stores import keys
from streams.stores.wire import Command, Refused, Wire, exchange, refusal

logger = logging.getLogger(__name__)

OLDEST = (6, 2)
DOUBTS = "its version, that it is a primary, and that maxmemory-policy is noeviction"


async def enter(wire: Wire, app_id: str) -> None:
    """Check one Redis: AccessDenied, UnsafeStore, or StoreUnavailable where it does not answer."""
    where = f"Redis at {wire.address}"
    try:
        info, forbidden = await wire.run(_look(app_id))
    except StoreUnavailable as error:
        raise refused(error, where) or _hinted(error, encrypted=wire.encrypted) from None
    if forbidden:
        raise AccessDenied(
            f"{where} does not let its user do what a worker must ({', '.join(forbidden)}): "
            "correct the user's ACL; docs/security.md has one"
        )
    if info is None:
        logger.warning("%s does not let its user run INFO: not checked are %s", where, DOUBTS)
    else:
        _judge(info, where)


def _look(app_id: str) -> Any:
    rehearsed = rehearsal(app_id)

    async def operation(connection: AbstractConnection) -> tuple[dict[str, str] | None, list[str]]:
        answer, *replies = await exchange(connection, [("INFO",), *rehearsed])
        forbidden = [
            " ".join(map(str, command[:2]))
            for command, reply in zip(rehearsed, replies, strict=True)
            if isinstance(reply, exceptions.NoPermissionError)
        ]
        if isinstance(answer, exceptions.NoPermissionError):
            return None, forbidden
        if isinstance(answer, exceptions.ResponseError):
            raise Refused(refusal(answer)) from answer
        lines = (line.partition(":") for line in answer.decode().splitlines())
        return {name: value for name, _, value in lines}, forbidden

    return operation


def rehearsal(app_id: str) -> list[Command]:
    """Every command of the store, most of them queued and discarded: Redis judges by its ACL when it queues one."""
    of, deployment = keys.TaskKeys(app_id, 0), keys.deployment(app_id)
    return [
        ("WATCH", of.main),
        ("WATCH", deployment),
        ("UNWATCH",),
        ("MULTI",),
        ("HGETALL", deployment),
        ("HSET", deployment, "", ""),
        ("HGET", of.main, "ver"),
        ("HMGET", of.states[0], ""),
        ("HGETALL", of.accumulators),
        ("GET", of.outputs),
        ("ZRANGE", of.timers, 0, 0),
        ("HSET", of.main, "", ""),
        ("HDEL", of.states[0], ""),
        ("SET", of.outputs, ""),
        ("ZADD", of.timers, 0, ""),
        ("ZREM", of.sessions, ""),
        ("UNLINK", of.changed),
        ("DISCARD",),
        ("MULTI",),
        ("EXEC",),
    ]


def _judge(info: Mapping[str, str], where: str) -> None:
    version = tuple(int(part) for part in info["redis_version"].split(".")[:2])
    if version < OLDEST:
        raise UnsafeStore(f"{where} is version {info['redis_version']}: Pulseline needs 6.2 or newer")
    if (policy := info.get("maxmemory_policy", "noeviction")) != "noeviction":
        raise UnsafeStore(
            f"{where} may drop state when memory is full: maxmemory-policy is {policy}. "
            "Run `CONFIG SET maxmemory-policy noeviction` and put it into redis.conf"
        )
    if info.get("role") != "master":
        raise UnsafeStore(f"{where} is a replica: REDIS_URL must name the primary")
    if info.get("redis_mode") == "cluster":
        raise UnsafeStore(f"{where} is a cluster: Pulseline needs a single primary (with replicas)")


def refused(error: BaseException, where: str) -> AccessDenied | StoreUnavailable | None:
    """What a failed connection means, by what it came of; None where it means no more than it says."""
    for cause in _causes(error):
        match cause:
            case exceptions.AuthenticationError():
                return AccessDenied(
                    f"{where} does not accept the user and password of PULSELINE_REDIS_URL "
                    "(redis://user:password@host:port/db) or PULSELINE_REDIS_PASSWORD (or ..._FILE): correct them"
                )
            case ssl.SSLCertVerificationError():
                return AccessDenied(
                    f"{where} shows a certificate that cannot be trusted: {cause.verify_message.rstrip('.')}. "
                    "Check PULSELINE_REDIS_CA, the host in PULSELINE_REDIS_URL and the certificate"
                )
            case ssl.SSLError() if "ALERT" in (cause.reason or ""):
                return AccessDenied(
                    f"{where} refuses this client's certificate: check PULSELINE_REDIS_CERT and PULSELINE_REDIS_KEY"
                )
            case exceptions.NoPermissionError():
                return AccessDenied(f"{where} does not let its user do that: docs/security.md has an ACL that does")
    return None


def _hinted(error: StoreUnavailable, *, encrypted: bool) -> StoreUnavailable:
    """The same error, with what it may come of where TLS is spoken on one side only, or a certificate is missing."""
    causes = list(_causes(error))
    if any(isinstance(cause, ConnectionResetError) or "closed by server" in str(cause) for cause in causes):
        hint = "it may want PULSELINE_REDIS_CERT" if encrypted else "it may speak TLS, rediss://"
    elif encrypted and any(isinstance(cause, exceptions.TimeoutError) for cause in causes):
        hint = "it may not speak TLS, redis://"
    else:
        return error
    return StoreUnavailable(f"{error}; {hint}")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
