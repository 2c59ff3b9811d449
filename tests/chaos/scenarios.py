"""The scenarios as data: what befalls the workers, and on what ground."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import redis

from streams.errors import StateLost
from tests.chaos.ground import Replica
from tests.chaos.stage import STOPPED_WITHIN_S, Stage
from tests.support.brokers import Server
from tests.support.proxy import Proxy
from tests.support.workers import WorkerProcess

STEPS = {"at_least_once": ("rejected", "exec", "publish", "offsets"), "exactly_once": ("exec", "transaction")}
SESSION_S = 3
TAIL_BYTES_MAX = 300_000


@dataclass(frozen=True)
class Scenario:
    """play: what befalls so many workers in so many rounds. needs: "redis on a disk", "kafka on a disk" or none.

    live: the records happen when they are sent, see Stage.
    """

    name: str
    claim: str
    play: Callable[[Stage, int], None]
    rounds: int
    workers: int = 2
    needs: str = ""
    live: bool = False


def kill_storm(stage: Stage, rounds: int) -> None:
    """Somebody dies by kill -9 at some moment; the replacement dies before some step of a commit."""
    steps = STEPS[stage.deployment.settings.processing_guarantee]
    for number in range(rounds):
        stage.lull()
        victim = stage.rng.choice(stage.crew)
        stage.kill(victim)
        stage.hit("kill -9")
        step = steps[(number + stage.seed) % len(steps)]
        doomed = stage.hire(FAILPOINT=f"{step}:{stage.rng.randint(3, 12)}")
        stage.catch_up(f"kill -9 of worker {victim.number}")
        wait_for_end(stage, doomed, -9)
        stage.hit(f"kill -9 before {step}")
        stage.hire()
        stage.catch_up(f"kill -9 of worker {doomed.number} before {step}")


def wait_for_end(stage: Stage, worker: WorkerProcess, code: int) -> None:
    stage.deployment.wait(f"worker {worker.number} ends", lambda: not worker.running)
    assert worker.process.returncode == code, worker.log[-3_000:]
    stage.dismiss(worker, code)


def zombies(stage: Stage, rounds: int) -> None:
    """A worker is frozen beyond its session and wakes as a zombie; in every second round its successor dies first."""
    for number in range(rounds):
        stage.deployment.wait_shared(*stage.crew)
        stage.lull()
        frozen = stage.rng.choice(stage.crew)
        frozen.freeze()
        stage.hit("frozen beyond the session")
        begun = time.monotonic()
        stage.catch_up(f"SIGSTOP of worker {frozen.number}")
        if number % 2:
            successor = next(worker for worker in stage.crew if worker is not frozen)
            stage.kill(successor)
            stage.hit("kill -9 of the successor")
            stage.hire()
        time.sleep(max(0.0, begun + stage.rng.uniform(1.5, 3) * SESSION_S - time.monotonic()))
        frozen.wake()
        stage.catch_up(f"SIGCONT of worker {frozen.number}")


def churn(stage: Stage, rounds: int) -> None:
    """Workers join and leave, two to four at a time, in order or by kill -9."""
    for _ in range(rounds):
        stage.lull(0.5, 2.5)
        joins = len(stage.crew) < 3 or (len(stage.crew) < 4 and stage.rng.random() < 0.5)
        if joins:
            stage.hire()
            stage.hit("joined")
        elif stage.rng.random() < 0.7:
            stage.leave(stage.rng.choice(stage.crew))
            stage.hit("left")
        else:
            stage.kill(stage.rng.choice(stage.crew))
            stage.hit("kill -9")
        if stage.rng.random() < 0.6:
            stage.catch_up(f"churn, {len(stage.crew)} workers")
    stage.catch_up(f"churn, {len(stage.crew)} workers")


def rolling_restart(stage: Stage, rounds: int) -> None:
    """SIGTERM one after the other, each replaced when it has ended."""
    for _ in range(rounds):
        for worker in list(stage.crew):
            stage.lull(0.5, 1.5)
            assert stage.leave(worker) < STOPPED_WITHIN_S, f"worker {worker.number} took long to stop"
            stage.hit("SIGTERM and replaced")
            stage.hire()
            stage.catch_up(f"restart of worker {worker.number}")


def outage(stage: Stage, server: Server, what: str, away_s: float) -> None:
    """kill -9 of a server and its return."""
    server.kill()
    time.sleep(away_s)
    server.start()
    stage.hit(what)
    stage.catch_up(what)


def broker_killed(stage: Stage, rounds: int) -> None:
    """The broker dies by kill -9 and comes back, sooner or later; and is frozen for some seconds."""
    for _ in range(rounds):
        stage.lull()
        outage(stage, stage.ground.kafka, "broker kill -9", stage.rng.uniform(0, 6))
        stage.lull()
        stage.ground.kafka.pause()
        time.sleep(stage.rng.uniform(2, 5))
        stage.ground.kafka.resume()
        stage.hit("broker frozen")
        stage.catch_up("broker frozen")


def redis_tail_lost(stage: Stage, rounds: int) -> None:
    """Redis dies and the end of its append-only file is lost, as in a power cut with everysec."""
    for _ in range(rounds):
        stage.lull(2, 4)
        before = stage.deployment.records_read()
        stage.ground.redis.kill()
        cut = lose_tail(stage, stage.rng.randint(1_000, TAIL_BYTES_MAX))
        stage.ground.redis.start()
        undone = (before - stage.deployment.records_read()).total()
        stage.hit("Redis kill -9, tail of the AOF lost")
        stage.catch_up(f"Redis killed, {cut} bytes and the commits of {undone} records lost")


def lose_tail(stage: Stage, lost: int) -> int:
    """Cut the end off the append-only file of a dead Redis; returns how many bytes went."""
    path = max(stage.ground.redis.folder.rglob("*.aof"), key=lambda path: path.stat().st_size)
    size = path.stat().st_size
    keep = max(size // 2, size - lost)  # the first start of a task must not be lost: that is another scenario
    with path.open("r+b") as file:
        file.truncate(keep)
    return size - keep


def stale_failover(stage: Stage, rounds: int) -> None:
    """A replica that lags by some seconds becomes the primary, and the workers' address leads there."""
    for number in range(rounds):
        replica = Replica(stage.ground, stage.stack)
        stage.lull()
        replica.lag()
        stage.lull(0.3, 4)
        before = stage.deployment.records_read()
        if number % 2:  # a worker that sleeps through the failover wakes with a memory that is ahead of the state
            stage.crew[0].freeze()
        stage.ground.fall_over_to(replica.server)
        undone = (before - stage.deployment.records_read()).total()
        stage.hit("failover to a stale replica")
        if number % 2:
            time.sleep(2 * SESSION_S)
            stage.crew[0].wake()
            stage.hit("frozen beyond the session")
        stage.catch_up(f"failover, the commits of {undone} records lost")


def everything_flushed(stage: Stage, rounds: int) -> None:
    """FLUSHALL while offsets are committed: the workers stop, and fold the log again when they are told to.

    In the second round they have been told beforehand, and one of them dies while it does so.
    """
    flush(stage)
    for worker in list(stage.crew):
        wait_for_end(stage, worker, StateLost.exit_code)
        assert "StateLost" in worker.log, worker.log[-3_000:]
    wait_for_end(stage, stage.hire(), StateLost.exit_code)
    assert stage.deployment.records_read().total() == 0, "a worker went on without its state"
    stage.hire(REBUILD="on")
    stage.hire(REBUILD="on")
    stage.catch_up("FLUSHALL and a rebuild")
    for _ in range(rounds - 1):
        flush(stage)
        stage.deployment.wait("the rebuild has begun", lambda: stage.deployment.records_read().total() > 0)
        stage.kill(stage.crew[0])
        stage.hit("kill -9 during the rebuild")
        stage.hire(REBUILD="on")
        stage.catch_up("FLUSHALL, and a rebuild cut short by kill -9")


def flush(stage: Stage) -> None:
    stage.lull(1.5, 3)
    stage.mark_muted()
    with stage.ground.client() as client:
        client.flushall()
    stage.hit("FLUSHALL")


def redis_full(stage: Stage, rounds: int) -> None:
    """Redis refuses every write, as its memory is full, and is given more again."""
    for _ in range(rounds):
        stage.lull()
        with stage.ground.client() as client:
            client.config_set("maxmemory", 1_000_000)
            time.sleep(stage.rng.uniform(1, 8))
            refused = client.info("errorstats").get("errorstat_OOM", {"count": 0})["count"]
            client.config_set("maxmemory", 0)
        assert refused, "no write was refused"
        stage.hit("Redis out of memory")
        stage.catch_up(f"Redis out of memory, {refused} commands refused so far")


def redis_disk_full(stage: Stage, rounds: int) -> None:
    """The disk of Redis' append-only file is full: MISCONF, until there is room again."""
    for _ in range(rounds):
        stage.lull()
        stage.disk.fill()
        with stage.ground.client() as client:
            stage.deployment.wait("writes are refused", lambda: refuses_writes(client))
            time.sleep(stage.rng.uniform(1, 6))
            stage.disk.free()
            stage.deployment.wait("writes are taken", lambda: not refuses_writes(client))
        stage.hit("Redis' disk full")
        stage.catch_up("Redis' disk full")


def refuses_writes(client: "redis.Redis") -> bool:
    try:
        client.set("probe", "1")
    except redis.ResponseError:
        return True
    client.delete("probe")
    return False


def kafka_disk_full(stage: Stage, rounds: int) -> None:
    """The disk of Kafka's log is full: the broker stops; it is started again when there is room."""
    daemon: Any = stage.ground.kafka
    for _ in range(rounds):
        stage.lull()
        stage.disk.fill()
        stage.deployment.wait("the broker gives up", lambda: daemon.daemon.pid is None)
        stage.lull()
        stage.disk.free()
        stage.ground.kafka.start()
        stage.hit("Kafka's disk full")
        stage.catch_up("Kafka's disk full")


def slow_redis(stage: Stage, rounds: int) -> None:
    """Each answer of Redis comes late; it pauses; it freezes, in the end for longer than anybody waits."""
    for number in range(rounds):
        stage.lull()
        delay_s = stage.rng.uniform(0.05, 0.5)
        slow(stage, delay_s)
        time.sleep(5)
        slow(stage, 0.0)
        stage.hit("answers of Redis delayed")
        stage.catch_up(f"answers of Redis {delay_s * 1_000:.0f} ms late")
        stage.lull()
        with stage.ground.client() as client:
            client.client_pause(3_000)
        time.sleep(3)
        stage.hit("CLIENT PAUSE")
        stage.catch_up("CLIENT PAUSE for 3 s")
        stage.lull()
        stage.ground.redis.pause()
        time.sleep(2 + 10 * number)
        stage.ground.redis.resume()
        stage.hit("Redis frozen")
        stage.catch_up(f"Redis frozen for {2 + 10 * number} s")


def slow(stage: Stage, delay_s: float) -> None:
    def delay(proxy: Proxy) -> None:
        proxy.delay_s = delay_s

    stage.ground.gate.order(delay)


SCENARIOS = (
    Scenario("kills", "kill -9 storm, half of it inside a commit", kill_storm, 4),
    Scenario("zombies", "SIGSTOP beyond the session, then SIGCONT", zombies, 3),
    Scenario("churn", "two to four workers join and leave", churn, 8),
    Scenario("rolling", "rolling restart", rolling_restart, 2, workers=3),
    Scenario("broker", "broker killed and frozen", broker_killed, 2),
    Scenario("tail", "Redis killed, end of its AOF lost", redis_tail_lost, 4),
    Scenario("failover", "failover to a stale replica", stale_failover, 3),
    Scenario("flush", "FLUSHALL with offsets present, then a rebuild", everything_flushed, 2),
    Scenario("memory", "Redis out of memory", redis_full, 3),
    Scenario("redis-disk", "full disk under Redis", redis_disk_full, 3, needs="redis on a disk"),
    Scenario("kafka-disk", "full disk under Kafka", kafka_disk_full, 2, needs="kafka on a disk"),
    Scenario("slow", "slow and frozen Redis", slow_redis, 2),
    Scenario("live-kills", "kill -9 storm, live: silence is punctuated", kill_storm, 4, live=True),
    Scenario("live-zombies", "SIGSTOP and SIGCONT, live", zombies, 3, live=True),
    Scenario("live-broker", "broker killed and frozen, live", broker_killed, 2, live=True),
    Scenario("live-failover", "failover to a stale replica, live", stale_failover, 3, live=True),
    Scenario("live-flush", "FLUSHALL and a rebuild, live", everything_flushed, 2, live=True),
)
