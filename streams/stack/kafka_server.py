"""One Apache Kafka in KRaft mode, broker and controller in one process, run from its jars."""

import base64
import logging
import signal
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from streams.stack.daemons import Daemon
from streams.stack.ports import LOOPBACK, answers, pick
from streams.stack.waiting import Say, StackProblem, silent, wait_until

START_TIMEOUT_S = 90
# Quick to start and small; a load test passes options of its own to get the optimising compiler.
QUICK_JVM = ("-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")

PROPERTIES = """\
process.roles=broker,controller
node.id=1
listeners=BROKER://{host}:{port},CONTROLLER://{host}:{controller_port}
advertised.listeners=BROKER://{host}:{port},CONTROLLER://{host}:{controller_port}
listener.security.protocol.map=BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=BROKER
controller.listener.names=CONTROLLER
controller.quorum.bootstrap.servers={host}:{controller_port}
log.dirs={logs}
auto.create.topics.enable=false
# One broker: every internal topic has one replica, and few partitions to open at a start.
default.replication.factor=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=4
# Groups form at once; tests may ask for sessions of a second.
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
log.cleaner.dedupe.buffer.size=16777216
# A broker that was killed is let in again after 3 s instead of 9.
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
"""

LOGGING = """\
status=error
appender.out.type=Console
appender.out.name=OUT
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d{{ISO8601}} %p %c{{1}}: %m%n
rootLogger.level={level}
rootLogger.appenderRef.out.ref=OUT
"""


class KafkaServer:
    """A broker in `folder` on a port of 127.0.0.1; may be killed and started again on the same data.

    extra: further lines of server.properties, name -> value, which win over ours; {controller_port} stands for a port.
    """

    def __init__(
        self,
        folder: Path,
        *,
        java: str,
        jars: Path,
        port: int,
        jvm: Sequence[str] = QUICK_JVM,
        extra: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.folder = folder
        self.port = port
        self.daemon = Daemon("kafka", folder)
        self._extra = extra
        self._properties = folder / "server.properties"
        self._java = [java, *jvm, "-cp", f"{jars}/*", f"-Dlog4j2.configurationFile={folder / 'log4j2.properties'}"]

    @property
    def bootstrap(self) -> str:
        """host:port for clients."""
        return f"{LOOPBACK}:{self.port}"

    def start(self, say: Say = silent) -> None:
        """Start and wait until the broker serves; raises StackProblem."""
        self.launch()
        self.wait_ready(say)

    def launch(self) -> None:
        """Start without waiting; nothing happens if the broker runs."""
        if self.daemon.pid is not None:
            return
        self._configure()
        self.daemon.spawn([*self._java, "kafka.Kafka", str(self._properties)])

    def wait_ready(self, say: Say = silent, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait until a metadata reply lists a broker."""
        wait_until(
            lambda: kafka_answers(self.bootstrap),
            what=f"Kafka at {self.bootstrap}",
            timeout_s=timeout_s,
            say=say,
            check=self.daemon.ensure_running,
        )

    def stop(self) -> None:
        """Shut down in order."""
        self.daemon.stop()

    def kill(self) -> None:
        """End at once, as kill -9 does."""
        self.daemon.kill()

    def pause(self) -> None:
        """Freeze the process (SIGSTOP)."""
        self.daemon.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen process go on (SIGCONT)."""
        self.daemon.signal(signal.SIGCONT)

    def _configure(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        logs = self.folder / "data"
        template = PROPERTIES + "".join(f"{name}={value}\n" for name, value in self._extra.items())
        properties = template.format(host=LOOPBACK, port=self.port, controller_port=pick(), logs=logs)
        self._properties.write_text(properties)
        (self.folder / "log4j2.properties").write_text(LOGGING.format(level="info"))
        if not (logs / "meta.properties").exists():
            self._format()

    def _format(self) -> None:
        # A cluster id is 16 bytes in base64url; the first one keeps it from starting with a dash, as an option does.
        cluster_id = base64.urlsafe_b64encode(b"\x51" + uuid.uuid4().bytes[1:]).decode().rstrip("=")
        command = [
            *self._java,
            "kafka.tools.StorageTool",
            "format",
            "--standalone",
            "-t",
            cluster_id,
            "-c",
            str(self._properties),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=START_TIMEOUT_S)
        if done.returncode != 0:
            raise StackProblem(f"Kafka could not format {self.folder}:\n{(done.stdout + done.stderr)[-2000:]}")


def kafka_answers(bootstrap: str, **options: Any) -> bool:
    """True when a Kafka at host:port lists a broker; options: kafka-python's, for security."""
    host, _, port = bootstrap.partition(",")[0].rpartition(":")
    if not answers(int(port), host):
        return False
    from kafka.admin import KafkaAdminClient
    from kafka.errors import KafkaError

    # A broker that is still starting is what we wait for, so the client's complaints about it are noise.
    logger = logging.getLogger("kafka")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        admin = KafkaAdminClient(
            bootstrap_servers=bootstrap, bootstrap_timeout_ms=2000, request_timeout_ms=2000, **options
        )
        try:
            return bool(admin.describe_cluster()["brokers"])
        finally:
            admin.close()
    except (KafkaError, OSError):
        return False
    finally:
        logger.setLevel(before)
