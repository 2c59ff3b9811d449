"""Kafka and Redis that let nobody in without credentials: right ones work, wrong ones are told, none is shown."""

import base64
import gc
import logging
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
import redis
from click.testing import CliRunner

from models.topics import DEFAULT_TOPIC_PREFIX, OUTPUT_TOPICS
from streams.cli import main
from streams.cli.state import read_profile
from streams.cli.tail import read_through
from streams.cli.topics import apply_topics
from streams.errors import AccessDenied, LogUnavailable, StoreUnavailable
from streams.producer.client import EngagementProducer
from streams.settings import Settings, kafka_options, redis_options
from streams.stack import ports
from streams.stack.ports import LOOPBACK
from streams.stores.entry import rehearsal
from streams.stores.redis import RedisStore
from streams.transport.refusals import why_not
from tests.support.brokers import Names
from tests.support.certificates import Authority, Pair
from tests.support.secured import SecuredKafka, SecuredRedis
from tests.support.site import ROOT, Program, Site, stop

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(240),
    # kafka-python leaves the sockets of failed connections to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

PAGE = (ROOT / "docs" / "security.md").read_text()
KAFKA_SECRET, REDIS_SECRET = "kafka Zebra7/%@:#x", "p@ss/w:rd%#?Heron5 x"
SHOP = {"KAFKA_SECURITY": "SASL_PLAINTEXT", "KAFKA_SASL_MECHANISM": "PLAIN", "KAFKA_USERNAME": "shop"}
SHOP["KAFKA_PASSWORD"] = "plain-Ibis3"
SECRETS = (KAFKA_SECRET, REDIS_SECRET, SHOP["KAFKA_PASSWORD"], "key-Raven9")


@dataclass(frozen=True, slots=True)
class Secured:
    """Both servers; as Brokers, they are what the tests' own hand sees: the listeners without security."""

    authority: Authority
    stranger: Authority
    worker: Pair
    kafka: SecuredKafka
    redis: SecuredRedis

    @property
    def bootstrap(self) -> str:
        return self.kafka.bootstrap

    @property
    def redis_url(self) -> str:
        return self.redis.server.url

    @property
    def scram(self) -> dict[str, str]:
        """Settings of the user `pulse` of Kafka, over TLS."""
        return {
            "KAFKA_BOOTSTRAP": self.kafka.at("scram"),
            "KAFKA_SECURITY": "SASL_SSL",
            "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
            "KAFKA_USERNAME": "pulse",
            "KAFKA_PASSWORD": KAFKA_SECRET,
            "KAFKA_CA": str(self.authority.ca),
        }

    @property
    def certified(self) -> dict[str, str]:
        """Settings of the worker's certificate, whose key is encrypted; Kafka knows it as CN=worker."""
        return {
            "KAFKA_BOOTSTRAP": self.kafka.at("tls"),
            "KAFKA_SECURITY": "SSL",
            "KAFKA_CA": str(self.authority.ca),
            "KAFKA_CERT": str(self.worker.cert),
            "KAFKA_KEY": str(self.worker.key),
            "KAFKA_KEY_PASSWORD": "key-Raven9",
        }

    @property
    def redis_tls(self) -> dict[str, str]:
        """Settings of an ACL user of Redis, over TLS."""
        return {
            "REDIS_URL": self.redis.url("pulse", tls=True),
            "REDIS_PASSWORD": REDIS_SECRET,
            "REDIS_CA": str(self.authority.ca),
        }

    def allow(self, names: Names, user: str, *who: str) -> None:
        """Let a user of Kafka do what docs/security.md says that these must be allowed to."""
        rows = re.findall(
            r"^\| ([^|]+) \| (topic|group|transactional id) \| ([^|]+) \| ([A-Z_, ]+) \|$", PAGE, re.MULTILINE
        )
        found = [row for row in rows if row[0] in who]
        assert {row[0] for row in found} == set(who)
        for _, kind, called, operations in found:
            for name in re.findall(r"`([^`]+)`", called):
                own = name.replace(DEFAULT_TOPIC_PREFIX, names.topic_prefix).replace("pulseline", names.app_id)
                prefixed = "begins so" in called
                self.kafka.allow(user, kind.upper().replace(" ", "_"), own, *operations.split(", "), prefixed=prefixed)

    def rules(self, names: Names, *without: str) -> list[str]:
        """The ACL of docs/security.md for this app."""
        (line,) = re.findall(r"^user pulseline on >PASSWORD (.*)$", PAGE, re.MULTILINE)
        return [rule.replace("pulseline", names.app_id) for rule in line.split() if rule not in without]


@pytest.fixture(autouse=True)
def no_litter() -> Iterator[None]:
    yield
    gc.collect()


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("secured")
    authority, stranger = Authority(folder, "authority"), Authority(folder, "stranger")
    worker = authority.issue("worker", password="key-Raven9")
    kafka = SecuredKafka(folder / "kafka", authority, {"shop": SHOP["KAFKA_PASSWORD"]})
    redis_server = SecuredRedis(folder / "redis", authority)
    with ExitStack() as running:
        kafka.server.launch()
        running.callback(kafka.server.stop)
        redis_server.start()
        running.callback(redis_server.stop)
        kafka.server.wait_ready()
        kafka.add_user("pulse", KAFKA_SECRET)
        yield Secured(authority, stranger, worker, kafka, redis_server)


@pytest.fixture
def site(secured: Secured, names: Names, tmp_path: Path) -> Iterator[Site]:
    running = Site(secured, names, tmp_path)  # type: ignore[arg-type]
    try:
        yield running
    finally:
        running.end()


def send(site: Site, secured: Secured, count: int) -> None:
    """Page views, as a shop's backend sends them that has a user and no TLS."""
    settings = Settings.from_environ({}, SHOP | {"KAFKA_BOOTSTRAP": secured.kafka.at("plain")})
    options = kafka_options(settings)
    with EngagementProducer(settings.kafka_bootstrap, topic_prefix=site.names.topic_prefix, **options) as producer:
        for number in range(count):
            producer.send(type="page_viewed", customer_id=f"c-{number}")
    site.sent += count


def forms(secret: str) -> set[str]:
    """How a secret may look in a text: as it is, its telling part, percent-encoded, or in base64."""
    raw = (secret, f":{secret}", f"\0shop\0{secret}", f"pulse:{secret}")
    telling = re.findall(r"[A-Z][a-z]+\d", secret)
    return {secret, *telling, quote(secret, safe=""), quote(secret)} | {
        base64.b64encode(each.encode()).decode() for each in raw
    }


def assert_discreet(text: str) -> None:
    """No secret of this module is in the text."""
    assert text
    found = {form for secret in SECRETS for form in forms(secret) if form in text}
    assert not found


def command_line(program: Program) -> str:
    return Path(f"/proc/{program.process.pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def listening(pid: int) -> set[str]:
    """The addresses (host:port) that a process listens on, by the kernel's own tables."""
    links = [str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir() if each.is_symlink()]
    sockets = {link[8:-1] for link in links if link.startswith("socket:[")}
    found = set()
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for row in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *rest = row.split()
            if state == "0A" and rest[5] in sockets:
                host, _, port = local.partition(":")
                words = bytes.fromhex(host)
                packed = b"".join(words[each : each + 4][::-1] for each in range(0, len(words), 4))
                found.add(f"{socket.inet_ntop(family, packed).removeprefix('::ffff:')}:{int(port, 16)}")
    return found


# ------------------------------------------------------------------ let in


def test_a_user_over_tls_with_the_least_rights_serves(secured: Secured, names: Names, site: Site) -> None:
    """SCRAM over TLS with passwords from files, and the ACLs of docs/security.md: all is counted, nothing shown."""
    secured.allow(names, "pulse", "worker", "`pulseline health`")
    secured.allow(names, "shop", "SDK")
    secured.redis.add_user("pulse", REDIS_SECRET, *secured.rules(names))
    given = secured.scram | secured.redis_tls
    for name in ("KAFKA_PASSWORD", "REDIS_PASSWORD"):
        (site.folder / name).write_text(given.pop(name) + "\n")
        given[f"{name}_FILE"] = str(site.folder / name)
    worker = site.run(**given, LOG_LEVEL="DEBUG")
    site.wait_claimed(worker)
    send(site, secured, 20)
    site.wait_served()
    assert listening(worker.process.pid) == set()
    environ = Path(f"/proc/{worker.process.pid}/environ").read_bytes().decode()
    assert_discreet(command_line(worker) + environ)
    asked = CliRunner().invoke(main, ["health"], env=site.environ(**given))
    assert (asked.exit_code, asked.output) == (0, f"group {names.app_id} is Stable, 1 of its workers run here\n")
    wait_out_a_refusal(secured, names, site, worker)
    assert stop(worker)[0] == 0
    assert "Traceback" not in worker.log
    assert_discreet(worker.log)


def wait_out_a_refusal(secured: Secured, names: Names, site: Site, worker: Program) -> None:
    """Redis forgets the user while the worker runs: it waits, saying why, and goes on when it is let in again."""
    with redis.Redis.from_url(secured.redis_url) as client:
        client.execute_command("ACL", "DELUSER", "pulse")
    send(site, secured, 20)
    site.wait("the worker says why", lambda: "AuthenticationError" in worker.log)
    secured.redis.add_user("pulse", REDIS_SECRET, *secured.rules(names))
    site.wait_served()


def test_a_certificate_and_transactions_serve(secured: Secured, names: Names, site: Site) -> None:
    """mTLS with an encrypted key, exactly_once, the password in Redis' URL, Faust's own command and its --with-web."""
    secured.allow(names, "CN=worker", "worker", "worker with `exactly_once`")
    secured.allow(names, "shop", "SDK")
    secured.redis.add_user("pulse", REDIS_SECRET, *secured.rules(names))
    given = secured.certified | secured.redis_tls | {"REDIS_URL": secured.redis.url(login("pulse"), tls=True)}
    del given["REDIS_PASSWORD"]
    given |= {"PROCESSING_GUARANTEE": "exactly_once", "COMMIT_INTERVAL": "1s", "LOG_LEVEL": "DEBUG"}
    own, fausts = f"{LOOPBACK}:{ports.pick()}", f"{ports.pick()}"
    faust = ("faust", "-A", "streams.worker", "worker", "--with-web", "--web-port", fausts)
    worker = site.run(*faust, **given, WEB_PORT=own.rpartition(":")[2])
    site.wait_claimed(worker)
    send(site, secured, 20)
    site.wait_served()
    assert listening(worker.process.pid) <= {own}
    assert stop(worker)[0] == 0
    assert_discreet(worker.log)


def login(user: str) -> str:
    return f"{user}:{quote(REDIS_SECRET, safe='')}"


def test_kafka_and_redis_of_the_stack_listen_on_this_machine_alone(secured: Secured) -> None:
    """Whatever they open, and at least the ports we know of, is open on 127.0.0.1 only."""
    for server in (secured.kafka.server, secured.redis.server):
        assert server.daemon.pid is not None
        found = listening(server.daemon.pid)
        assert f"{LOOPBACK}:{server.port}" in found
        assert {address.rpartition(":")[0] for address in found} == {LOOPBACK}


def test_the_commands_of_people_use_the_same_settings(secured: Secured, names: Names, tmp_path: Path) -> None:
    """Topics are created and read, the group and a profile are asked for, with the rights of docs/security.md."""
    secured.allow(
        names, "pulse", "`pulseline topics apply`", "readers of outputs, `pulseline watch`, `pulseline explain`"
    )
    secured.redis.add_user("pulse", REDIS_SECRET, *secured.rules(names))
    own = {"APP_ID": names.app_id, "TOPIC_PREFIX": names.topic_prefix, "PARTITIONS": "2"}
    settings = Settings.from_environ({}, secured.scram | secured.redis_tls | own)
    assert {each.what for each in apply_topics(settings)} == {"topic"}
    assert list(read_through(settings, OUTPUT_TOPICS)) == []
    assert read_profile(settings, "nobody") is None
    environ = Site.bare_environ(tmp_path) | settings.environ()
    for arguments, code, words in (
        (["customer", "nobody"], 1, "no profile of this customer"),
        (["topics", "check", "--kafka-username", "nobody"], 2, "does not accept the user and password"),
        (["customer", "nobody", "--redis-url", secured.redis.url("nobody", tls=True)], 2, "does not accept the user"),
        (["stack", "status"], 0, f"Kafka {secured.kafka.at('scram')}: answers\nRedis rediss://localhost:"),
    ):
        done = CliRunner().invoke(main, arguments, env=environ)
        assert (done.exit_code, words in done.output) == (code, True), done.output
        assert_discreet(done.output)


# ------------------------------------------------------------------ kept out


def kafka_cases(secured: Secured) -> dict[str, tuple[dict[str, str], type[Exception], str]]:
    """What is wrong -> (settings, error, words of its message)."""
    scram, tls, at = secured.scram, secured.certified, secured.kafka.at
    uncertified = {name: text for name, text in tls.items() if not name.startswith(("KAFKA_CERT", "KAFKA_KEY"))}
    pair = secured.stranger.issue("impostor")
    plain = {"KAFKA_BOOTSTRAP": secured.bootstrap}
    return {
        "password": (scram | {"KAFKA_PASSWORD": "wrong"}, AccessDenied, "does not accept the user and password"),
        "user": (scram | {"KAFKA_USERNAME": "nobody"}, AccessDenied, "does not accept the user and password"),
        "mechanism": (scram | {"KAFKA_SASL_MECHANISM": "PLAIN"}, AccessDenied, "does not offer PULSELINE_KAFKA_SASL"),
        "authority": (scram | {"KAFKA_CA": str(secured.stranger.ca)}, AccessDenied, "unable to get local issuer"),
        "host": (scram | {"KAFKA_BOOTSTRAP": at("scram", LOOPBACK)}, AccessDenied, "not valid for '127.0.0.1'"),
        "expired": (uncertified | {"KAFKA_BOOTSTRAP": at("stale")}, AccessDenied, "certificate has expired"),
        "no certificate": (uncertified, AccessDenied, "refuses this client's certificate"),
        "certificate": (
            uncertified | {"KAFKA_CERT": str(pair.cert), "KAFKA_KEY": str(pair.key)},
            AccessDenied,
            "refuses this client's certificate",
        ),
        "no TLS": ({"KAFKA_BOOTSTRAP": at("tls")}, AccessDenied, "speaks TLS: PULSELINE_KAFKA_SECURITY=PLAINTEXT is"),
        "needless TLS": (uncertified | plain, LogUnavailable, "ends the TLS handshake"),
        "no user": ({"KAFKA_BOOTSTRAP": at("plain")}, LogUnavailable, "it may want a user"),
        "needless user": (SHOP | plain, AccessDenied, "knows no users on this port"),
        "nobody there": ({"KAFKA_BOOTSTRAP": "127.0.0.1:1"}, LogUnavailable, "is it running?"),
        "one of two lets us in": (scram | {"KAFKA_BOOTSTRAP": f"127.0.0.1:1,{at('scram')}"}, type(None), "None"),
    }


async def test_why_kafka_keeps_us_out_is_told(secured: Secured) -> None:
    """Each way of being wrong has its own words, names the setting and holds no secret."""
    for wrong, (given, kind, words) in kafka_cases(secured).items():
        settings = Settings.from_environ({}, given)
        reason = await why_not(settings.kafka_bootstrap, kafka_options(settings), 5_000)
        assert (type(reason), words in str(reason)) == (kind, True), f"{wrong}: {reason!r}"
        assert_discreet(repr(reason))


def redis_cases(secured: Secured, names: Names) -> dict[str, tuple[dict[str, str], type[Exception], str]]:
    """The same for Redis."""
    tls, plain, url = secured.redis_tls, {"REDIS_PASSWORD": REDIS_SECRET}, secured.redis.url
    return {
        "password": (tls | {"REDIS_PASSWORD": "wrong"}, AccessDenied, "does not accept the user and password"),
        "user": (tls | {"REDIS_URL": url("nobody", tls=True)}, AccessDenied, "does not accept the user and password"),
        "authority": (tls | {"REDIS_CA": str(secured.stranger.ca)}, AccessDenied, "cannot be trusted"),
        "host": (tls | {"REDIS_URL": url("pulse", tls=True, host=LOOPBACK)}, AccessDenied, "not valid for '127.0.0.1'"),
        "no TLS": (
            plain | {"REDIS_URL": url("pulse", tls=True).replace("rediss", "redis")},
            StoreUnavailable,
            "rediss://",
        ),
        "needless TLS": (
            tls | {"REDIS_URL": url("pulse").replace("redis", "rediss")},
            StoreUnavailable,
            "not speak TLS",
        ),
        "rights": (
            plain | {"REDIS_URL": url("poor")},
            AccessDenied,
            f"(HSET {{{names.app_id}}}:deployment, HSET {{{names.app_id}:0}}:m, ZREM {{{names.app_id}:0}}:e): correct",
        ),
    }


async def test_why_redis_keeps_us_out_is_told(secured: Secured, names: Names) -> None:
    """Likewise; commands that an ACL forbids are all named, before anything is written."""
    secured.redis.add_user("pulse", REDIS_SECRET, *secured.rules(names))
    secured.redis.add_user("poor", REDIS_SECRET, *secured.rules(names, "+hset", "+zrem"))
    for wrong, (given, kind, words) in redis_cases(secured, names).items():
        settings = Settings.from_environ({}, given)
        store = RedisStore(settings.redis_url, names.app_id, retry_ms=100, **redis_options(settings))
        with pytest.raises(kind) as caught:
            await store.check()
        await store.close()
        assert words in str(caught.value), f"{wrong}: {caught.value}"
        assert_discreet(f"{caught.value!r} {caught.value.__cause__!r}")
    with redis.Redis.from_url(secured.redis_url) as client:
        assert client.keys(f"{{{names.app_id}*") == []


async def test_what_could_not_be_checked_is_told(
    secured: Secured, names: Names, caplog: pytest.LogCaptureFixture
) -> None:
    """Without INFO a worker starts, and warns that eviction is unchecked; nothing is left behind by the rehearsal."""
    secured.redis.add_user("blind", REDIS_SECRET, *secured.rules(names, "+info"))
    store = RedisStore(secured.redis.url("blind"), names.app_id, password=REDIS_SECRET)
    await store.check()
    await store.close()
    (warning,) = caplog.messages
    assert "does not let its user run INFO: not checked are" in warning
    assert "maxmemory-policy is noeviction" in warning


def test_every_command_is_rehearsed_and_in_the_acl(secured: Secured, names: Names) -> None:
    """What the store's modules send is what a start rehearses and docs/security.md allows, no more and no less."""
    options = {"BYSCORE", "LIMIT", "WITHSCORES", "ALERT"}
    modules = [ROOT / "streams" / "stores" / f"{name}.py" for name in ("redis", "commands", "trail", "wire", "entry")]
    sent = {word for module in modules for word in re.findall(r'"([A-Z]{3,})"', module.read_text())} - options
    assert {str(command[0]) for command in rehearsal(names.app_id)} | {"INFO"} == sent
    assert {rule[1:].upper() for rule in secured.rules(names) if rule[0] == "+"} == sent


def test_a_worker_that_is_kept_out_stops_with_the_reason(secured: Secured, site: Site) -> None:
    """Exit code 2, the reason, no traceback, and no secret at DEBUG: of Kafka, of Redis, of Kafka's ACLs."""
    secured.redis.add_user("pulse", REDIS_SECRET, *secured.rules(site.names))
    secured.kafka.allow("CN=worker", "TOPIC", site.names.topic_prefix, "READ", "WRITE", prefixed=True)
    certified = secured.certified | secured.redis_tls
    wrong_kafka = secured.scram | secured.redis_tls | {"KAFKA_PASSWORD": f"{KAFKA_SECRET}!"}
    begun = {
        "does not accept the user and password of PULSELINE_KAFKA": site.run(**wrong_kafka, LOG_LEVEL="DEBUG"),
        "does not accept the user and password of PULSELINE_REDIS": site.run(
            **certified | {"REDIS_PASSWORD": f"{REDIS_SECRET}!"}, LOG_LEVEL="DEBUG"
        ),
        "Kafka's ACLs do not let this worker read in its group: GroupAuthorizationFailed": site.run(**certified),
    }
    for words, worker in begun.items():
        assert worker.ended(60) == 2, worker.log[-3_000:]
        assert words in worker.log
        assert "Traceback" not in worker.log
        assert_discreet(worker.log)


def test_the_sdk_tells_that_it_is_kept_out(secured: Secured, caplog: pytest.LogCaptureFixture) -> None:
    """In the time it was given, and without the password, also in what kafka-python logs."""
    caplog.set_level(logging.INFO)
    wrong = Settings.from_environ({}, SHOP | {"KAFKA_BOOTSTRAP": secured.kafka.at("plain"), "KAFKA_USERNAME": "nobody"})
    with pytest.raises(LogUnavailable, match="does not answer, or does not let us in") as caught:
        EngagementProducer(wrong.kafka_bootstrap, block_ms_max=500, **kafka_options(wrong))
    assert_discreet(f"{caught.value!r} {caplog.text}")
    caplog.clear()  # its records hold sockets that kafka-python leaves to the garbage collector
