"""`make bench`: events per CPU-second of a stock Faust agent, a bare loop and the Pulseline worker, on the same topics.

Interleaved runs on one local Kafka and Redis; medians and ratios go to bench/report.json. Ratios within one run hold on
a noisy machine, absolute figures do not.
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import redis

from bench.load import history, load
from models.topics import INPUT_TOPICS, topic_name
from streams.processing.book import unpack_book
from streams.stack.local import LocalStack
from streams.stores.keys import TaskKeys

HERE = Path(__file__).parent
PREFIX, PARTITIONS = "bench", 4
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
TIMEOUT_S = 900


def cpu_s(pid: int) -> float:
    """User and system CPU seconds a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_A_SECOND


def child(module: str, environ: dict[str, str], *arguments: str) -> dict[str, float]:
    """Run a benchmark that reports itself."""
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{module} failed:\n{done.stderr[-2_000:]}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def worker(stack: LocalStack, environ: dict[str, str], events: int) -> dict[str, float]:
    """(c) One Pulseline worker, whole: from its first claim until every event is committed to Redis and Kafka."""
    client = redis.Redis.from_url(stack.redis_url)
    client.flushdb()
    log = (HERE.parent / ".cache" / "bench-worker.log").open("w")
    process = subprocess.Popen(
        [sys.executable, "-m", "streams.worker"], env=environ, stdout=log, stderr=subprocess.STDOUT
    )
    try:
        began: tuple[float, float, float, float] | None = None
        deadline = time.monotonic() + TIMEOUT_S
        while (seen := accounted(client, environ["PULSELINE_APP_ID"])) < events:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the worker stopped or hung at {seen} events: see {log.name}")
            if began is None and seen >= 0:
                began = readings(stack, process.pid)
            time.sleep(0.02)
        if began is None:
            raise SystemExit("the worker was never seen at work")
        ended = readings(stack, process.pid)
        cpu, broker, store, wall = (after - before for before, after in zip(began, ended, strict=True))
        return {"events": events, "cpu_s": cpu, "wall_s": wall, "kafka_cpu_s": broker, "redis_cpu_s": store}
    finally:
        process.terminate()
        process.wait(30)
        log.close()


def readings(stack: LocalStack, pid: int) -> tuple[float, float, float, float]:
    """CPU seconds of the worker, Kafka and Redis, and the time."""
    pids = (pid, stack.kafka.daemon.pid or 0, stack.redis.daemon.pid or 0)
    worker_s, kafka_s, redis_s = (cpu_s(each) for each in pids)
    return worker_s, kafka_s, redis_s, time.perf_counter()


def accounted(client: redis.Redis, app_id: str) -> int:
    """Records committed by all tasks; -1 before the first claim."""
    total, found = 0, False
    for partition in range(PARTITIONS):
        meta = client.hget(TaskKeys(app_id, partition).main, "meta")
        if isinstance(meta, bytes):
            found = True
            total += sum(sum(topic.account().values()) for topic in unpack_book(meta).topics.values())
    return total if found else -1


def measure(stack: LocalStack, arguments: argparse.Namespace) -> dict[str, Any]:
    """All runs, interleaved, and their medians and ratios."""
    base = {name: value for name, value in os.environ.items() if not name.startswith("PULSELINE_")} | {
        "PULSELINE_KAFKA_BOOTSTRAP": stack.bootstrap,
        "PULSELINE_REDIS_URL": stack.redis_url,
        "PULSELINE_TOPIC_PREFIX": PREFIX,
        "PULSELINE_PARTITIONS": str(PARTITIONS),
        "PULSELINE_TOPIC_TIMESTAMPS": "CreateTime",
        "PULSELINE_TRIGGER_MAX_STALENESS": "0",
        "PULSELINE_PUNCTUATION": "off",
        "PULSELINE_WEB_PORT": "0",
        "PULSELINE_LOG_LEVEL": "WARNING",
    }
    subprocess.run([sys.executable, "-m", "streams.cli", "topics", "apply"], env=base, check=True)
    start_ms = int(time.time() * 1_000) - 86_400_000
    counts = asyncio.run(
        load(stack.bootstrap, PREFIX, PARTITIONS, history(arguments.events, arguments.customers, start_ms))
    )
    print(f"loaded {sum(counts.values())} events: {counts}", flush=True)
    topics = [topic_name(PREFIX, suffix) for suffix in INPUT_TOPICS]
    runs: dict[str, list[dict[str, float]]] = {"stock_faust_noop": [], "bare_core": [], "pulseline": []}
    for run in range(arguments.runs):
        group, stamp = f"bench-{run}", str(int(time.time()))
        runs["stock_faust_noop"].append(
            child("bench.stock_faust", base, stack.bootstrap, f"{group}-a-{stamp}", str(arguments.events), *topics)
        )
        runs["bare_core"].append(child("bench.bare_loop", base, stack.bootstrap, str(arguments.events), *topics))
        environ = base | {"PULSELINE_APP_ID": f"{group}-c-{stamp}"}
        runs["pulseline"].append(worker(stack, environ, arguments.events))
        for name, results in runs.items():
            last = results[-1]
            print(f"run {run + 1} {name:17} {last['events'] / last['cpu_s']:9.0f} events/CPU-s", flush=True)
    return report(arguments, counts, runs)


def report(
    arguments: argparse.Namespace, counts: dict[str, int], runs: dict[str, list[dict[str, float]]]
) -> dict[str, Any]:
    """Medians per variant, and the ratios run by run."""
    rates = {name: [run["events"] / run["cpu_s"] for run in results] for name, results in runs.items()}
    ratio = {
        f"vs_{name}": statistics.median(c / other for c, other in zip(rates["pulseline"], rates[name], strict=True))
        for name in ("stock_faust_noop", "bare_core")
    }
    return {
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()},
        "events": counts,
        "customers": arguments.customers,
        "runs": runs,
        "events_per_cpu_s": {name: statistics.median(found) for name, found in rates.items()},
        "events_per_s": {
            name: statistics.median(run["events"] / run["wall_s"] for run in results) for name, results in runs.items()
        },
        "ratios": ratio,
    }


def main() -> None:
    """Parse, measure, write the report."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--events", type=int, default=100_000, help="events loaded into the four topics")
    parser.add_argument("--customers", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    root = HERE.parent
    stack = LocalStack(root / ".cache" / "bench", tools_dir=root / ".pulseline" / "tools", jvm=("-Xms256m", "-Xmx1g"))
    stack.wipe()
    try:
        result = measure(stack.start(), arguments)
    finally:
        stack.wipe()
    (HERE / "report.json").write_text(json.dumps(result, indent=2) + "\n")
    for name, rate in result["events_per_cpu_s"].items():
        print(f"{name:17} {rate:9.0f} events/CPU-s  {result['events_per_s'][name]:9.0f} events/s")
    print("ratios", {name: round(value, 2) for name, value in result["ratios"].items()})


if __name__ == "__main__":
    main()
