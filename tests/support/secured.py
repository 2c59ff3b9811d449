"""A Kafka and a Redis that let nobody in without certificate or password: one of each serves all tests of security.

Kafka has a plain listener, for the tests' own hand, whose client is a super user, and four secured ones.
"""

from collections.abc import Mapping
from contextlib import closing
from functools import partial
from pathlib import Path

import redis
from kafka.admin import (
    ACL,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    KafkaAdminClient,
    ResourcePattern,
    ResourceType,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from streams.stack import ports, tools
from streams.stack.kafka_server import KafkaServer
from streams.stack.ports import LOOPBACK
from streams.stack.redis_server import RedisServer
from streams.stack.waiting import StackProblem
from tests.support.brokers import TOOLS
from tests.support.certificates import Authority, Pair
from tests.support.tls_front import TlsFront

LISTENERS = ("tls", "scram", "plain", "stale")
"""tls: a client certificate is demanded; scram, plain: users, over TLS and without; stale: an expired certificate."""
SCRAM = (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512)
MODULES = "org.apache.kafka.common.security"


class SecuredKafka:
    """One broker; `server` starts and stops it, `bootstrap` is the plain listener for the tests' own hand.

    users: name -> password, of the listener plain. SCRAM users are added by `add_user`.
    """

    def __init__(self, folder: Path, authority: Authority, users: Mapping[str, str]) -> None:
        self.ports = {name: ports.pick() for name in LISTENERS}
        good = authority.issue("broker", "DNS:localhost")
        stale = authority.issue("stale", "DNS:localhost", expired=True)
        self.server = KafkaServer(
            folder,
            java=tools.find_java(),
            jars=tools.kafka_jars(TOOLS),
            port=ports.pick(),
            extra=self._properties(authority, good, stale, users),
        )

    def _properties(self, authority: Authority, good: Pair, stale: Pair, users: Mapping[str, str]) -> dict[str, str]:
        protocols = {"tls": "SSL", "scram": "SASL_SSL", "plain": "SASL_PLAINTEXT", "stale": "SSL"}
        own = "BROKER://{host}:{port}," + "{}CONTROLLER://{host}:{controller_port}"
        listeners = "".join(f"{name.upper()}://{LOOPBACK}:{port}," for name, port in self.ports.items())
        advertised = "".join(f"{name.upper()}://localhost:{port}," for name, port in self.ports.items())
        logins = " ".join(f'user_{user}="{password}"' for user, password in users.items())
        return {
            "listeners": own.replace("{}", listeners),
            "advertised.listeners": own.replace("{}", advertised),
            "listener.security.protocol.map": ",".join(
                ["BROKER:PLAINTEXT", "CONTROLLER:PLAINTEXT"] + [f"{n.upper()}:{p}" for n, p in protocols.items()]
            ),
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(good.both),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(authority.ca),
            "listener.name.stale.ssl.keystore.type": "PEM",
            "listener.name.stale.ssl.keystore.location": str(stale.both),
            "listener.name.tls.ssl.client.auth": "required",
            "listener.name.scram.sasl.enabled.mechanisms": "SCRAM-SHA-256,SCRAM-SHA-512",
            "listener.name.scram.scram-sha-256.sasl.jaas.config": f"{MODULES}.scram.ScramLoginModule required;",
            "listener.name.scram.scram-sha-512.sasl.jaas.config": f"{MODULES}.scram.ScramLoginModule required;",
            "listener.name.plain.sasl.enabled.mechanisms": "PLAIN",
            "listener.name.plain.plain.sasl.jaas.config": f"{MODULES}.plain.PlainLoginModule required {logins};",
        }

    @property
    def bootstrap(self) -> str:
        return self.server.bootstrap

    def at(self, listener: str, host: str = "localhost") -> str:
        """host:port of a secured listener; its certificate names localhost only."""
        return f"{host}:{self.ports[listener]}"

    def admin(self) -> KafkaAdminClient:
        return KafkaAdminClient(bootstrap_servers=self.bootstrap)

    def add_user(self, name: str, password: str) -> None:
        """A SCRAM user, with both hashes."""
        with closing(self.admin()) as admin:
            for kind in SCRAM:  # Kafka takes one change of a user at a time
                made = admin.alter_user_scram_credentials([UserScramCredentialUpsertion(name, kind, password)])
                assert made == {name: None}

    def allow(self, user: str, kind: str, name: str, *operations: str, prefixed: bool = False) -> None:
        """Let a user do this with a TOPIC, a GROUP or a TRANSACTIONAL_ID, or all whose names begin so."""
        how = ACLResourcePatternType.PREFIXED if prefixed else ACLResourcePatternType.LITERAL
        what = ResourcePattern(ResourceType[kind], name, how)
        with closing(self.admin()) as admin:
            made = admin.create_acls(
                [ACL(f"User:{user}", "*", ACLOperation[each], ACLPermissionType.ALLOW, what) for each in operations]
            )
            assert made["failed"] == []


class SecuredRedis:
    """One Redis with a plain port, for the tests' own hand and for users without TLS, and one for TLS.

    Where it was built without TLS, as the wheel's is, a front of ours speaks it instead.
    """

    def __init__(self, folder: Path, authority: Authority) -> None:
        self.tls_port = ports.pick()
        self._pair = authority.issue("redis", "DNS:localhost")
        files = ("--tls-cert-file", str(self._pair.cert), "--tls-key-file", str(self._pair.key))
        trust = ("--tls-ca-cert-file", str(authority.ca), "--tls-auth-clients", "optional")
        self._server = partial(RedisServer, folder, program=tools.find_redis(TOOLS), port=ports.pick())
        self.server = self._server(options=("--tls-port", str(self.tls_port), *files, *trust))
        self._front: TlsFront | None = None

    def start(self) -> None:
        """Start, and wait until it serves."""
        try:
            self.server.start()
        except StackProblem as problem:
            if "TLS" not in str(problem) and "tls" not in str(problem):
                raise
            self.server = self._server()
            self.server.start()
            self._front = TlsFront(self.tls_port, self.server.port, self._pair)
            self._front.start()

    def stop(self) -> None:
        if self._front is not None:
            self._front.stop()
        self.server.stop()

    def url(self, login: str = "", *, tls: bool = False, host: str = "localhost") -> str:
        """URL of database 0; login is user:password, percent-encoded."""
        at = f"{login}@" if login else ""
        return f"rediss://{at}{host}:{self.tls_port}/0" if tls else f"redis://{at}{host}:{self.server.port}/0"

    def add_user(self, name: str, password: str, *rules: str) -> None:
        with redis.Redis.from_url(self.server.url) as client:
            client.execute_command("ACL", "SETUSER", name, "reset", "on", f">{password}", *rules)
