"""(a) A stock Faust worker whose agents do nothing, on the same four topics.

Run as a child process; prints one JSON line {"events", "cpu_s", "wall_s"} and ends.
"""

import json
import os
import sys
import tempfile
import time

import faust

bootstrap, group, target, *topics = sys.argv[1:]
app = faust.App(
    group,
    broker=f"kafka://{bootstrap}",
    datadir=tempfile.mkdtemp(prefix="pulseline-bench-"),
    web_enabled=False,
    value_serializer="raw",
    key_serializer="raw",
    consumer_auto_offset_reset="earliest",
    topic_disable_leader=True,
)


class Count:
    """Events seen since the agents started: fetching ahead into buffers costs what it costs."""

    def __init__(self) -> None:
        self.seen, self.cpu_s, self.wall_s = 0, 0.0, 0.0

    def start(self) -> None:
        """Begin to measure, before the first event is fetched."""
        self.cpu_s, self.wall_s = time.process_time(), time.perf_counter()

    def one(self) -> None:
        """Count one event; report and leave at the target, the last event of the topics."""
        self.seen += 1
        if self.seen == int(target):
            cpu_s, wall_s = time.process_time() - self.cpu_s, time.perf_counter() - self.wall_s
            # Faust redirects sys.stdout into its log.
            os.write(1, (json.dumps({"events": self.seen, "cpu_s": cpu_s, "wall_s": wall_s}) + "\n").encode())
            os._exit(0)


count = Count()


def register(name: str) -> None:
    """One agent per topic, as in Pulseline."""

    async def consume(stream: faust.StreamT) -> None:
        count.start()
        async for _ in stream:
            count.one()

    app.agent(app.topic(name), name=f"agent-{name}")(consume)


for each in topics:
    register(each)

if __name__ == "__main__":
    faust.Worker(app, loglevel="ERROR").execute_from_commandline()
