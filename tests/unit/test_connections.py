"""Credentials and certificates in settings: contradictions are refused, files are read, secrets are never shown."""

import base64
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from click.testing import CliRunner

from streams.cli import main
from streams.errors import InvalidSettings
from streams.settings import Settings, is_secret, kafka_options, mask, names, redis_options
from tests.support.certificates import Authority

SECRET = "Zebra7/#?@:% x"
SASL = {"KAFKA_SECURITY": "SASL_SSL", "KAFKA_SASL_MECHANISM": "scram-sha-512", "KAFKA_USERNAME": "pulse"}
SECRETS = [name for name, attribute in names().items() if is_secret(attribute)]


def settings(**variables: str) -> Settings:
    return Settings.from_environ({f"PULSELINE_{name}": text for name, text in variables.items()})


def options(**variables: str) -> tuple[dict[str, Any], dict[str, Any]]:
    made = settings(**variables)
    return kafka_options(made), redis_options(made)


def refusal(**variables: str) -> str:
    with pytest.raises(InvalidSettings) as caught:
        options(**variables)
    return str(caught.value)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"), "authority")


# ------------------------------------------------------------------ what contradicts


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"KAFKA_USERNAME": "u"}, "KAFKA_USERNAME has no use with PULSELINE_KAFKA_SECURITY=PLAINTEXT"),
        ({"KAFKA_SECURITY": "SSL", "KAFKA_PASSWORD": "p"}, "KAFKA_PASSWORD (or ..._FILE) has no use"),
        ({"KAFKA_SASL_MECHANISM": "PLAIN"}, "KAFKA_SASL_MECHANISM has no use"),
        (SASL, "PULSELINE_KAFKA_SECURITY=SASL_SSL needs PULSELINE_KAFKA_PASSWORD (or ..._FILE)"),
        ({"KAFKA_SECURITY": "SASL_SSL", "KAFKA_USERNAME": "u", "KAFKA_PASSWORD": "p"}, "needs PULSELINE_KAFKA_SASL_ME"),
        (SASL | {"KAFKA_PASSWORD": "p", "KAFKA_PASSWORD_FILE": "f"}, "are both set"),
        ({"KAFKA_CA": "ca.pem"}, "KAFKA_CA has no use: PULSELINE_KAFKA_SECURITY is PLAINTEXT, without TLS"),
        ({"KAFKA_SECURITY": "SSL", "KAFKA_CERT": "c.pem"}, "KAFKA_CERT needs PULSELINE_KAFKA_KEY"),
        ({"KAFKA_SECURITY": "SSL", "KAFKA_KEY": "c.key"}, "KAFKA_KEY needs PULSELINE_KAFKA_CERT"),
        ({"KAFKA_SECURITY": "SSL", "KAFKA_KEY_PASSWORD": "p"}, "KAFKA_KEY_PASSWORD has no use without"),
        ({"KAFKA_SECURITY": "TLS"}, "PLAINTEXT or SSL or SASL_PLAINTEXT or SASL_SSL"),
        ({"KAFKA_SECURITY": "SASL_SSL", "KAFKA_SASL_MECHANISM": "GSSAPI"}, "SCRAM-SHA-256"),
        ({"REDIS_CA": "ca.pem"}, "REDIS_CA has no use: PULSELINE_REDIS_URL does not begin with rediss://"),
        ({"REDIS_URL": "rediss://c/0", "REDIS_CERT": "c.pem"}, "REDIS_CERT needs PULSELINE_REDIS_KEY"),
        ({"REDIS_URL": "redis://u:p@c/0", "REDIS_PASSWORD": "q"}, "REDIS_URL holds a password"),
        ({"REDIS_URL": "redis://c/0?password=p", "REDIS_PASSWORD_FILE": "f"}, "REDIS_URL holds a password"),
        ({"REDIS_PASSWORD": "p", "REDIS_PASSWORD_FILE": "f"}, "are both set"),
    ],
)
def test_credentials_that_contradict_each_other_stop_the_start(variables: dict[str, str], words: str) -> None:
    """Half a login, and files or names that nothing would use, are refused by name."""
    assert words in refusal(**variables)


def test_files_that_cannot_be_used_stop_the_start(authority: Authority, tmp_path: Path) -> None:
    """Absent, empty, no certificate, another's key, a key without its password: each with the setting's name."""
    pair, locked = authority.issue("one"), authority.issue("two", password=SECRET)
    empty, absent, text = tmp_path / "empty", str(tmp_path / "absent"), tmp_path / "text"
    empty.touch()
    text.write_text("no certificate")
    tls = {"KAFKA_SECURITY": "SSL"}
    assert f"KAFKA_CA={absent} cannot be read: No such file" in refusal(**tls, KAFKA_CA=absent)
    assert "holds no certificate" in refusal(**tls, KAFKA_CA=str(text))
    assert "cannot be read: No such file" in refusal(**tls, KAFKA_CERT=absent, KAFKA_KEY=str(pair.key))
    assert "must be a pair" in refusal(**tls, KAFKA_CERT=str(pair.cert), KAFKA_KEY=str(authority.folder / "ca.key"))
    login = {"KAFKA_CERT": str(locked.cert), "KAFKA_KEY": str(locked.key)}
    assert "KAFKA_KEY_PASSWORD (or ..._FILE) the key's" in refusal(**tls, **login)
    assert "must be a pair" in refusal(**tls, **login, KAFKA_KEY_PASSWORD="wrong")
    assert f"REDIS_PASSWORD_FILE={absent} cannot be read" in refusal(REDIS_PASSWORD_FILE=absent)
    assert "REDIS_PASSWORD_FILE names is empty" in refusal(REDIS_PASSWORD_FILE=str(empty))
    assert f"REDIS_CA={absent} cannot be read" in refusal(REDIS_URL="rediss://c/0", REDIS_CA=absent)


# ------------------------------------------------------------------ what clients are given


def test_without_security_there_are_no_options() -> None:
    """The defaults connect as before."""
    assert options() == ({}, {})


def test_kafkas_options_are_those_of_both_clients(authority: Authority, tmp_path: Path) -> None:
    """A user over TLS, the password from a file; a certificate with an encrypted key; the host's name is checked."""
    from aiokafka import AIOKafkaProducer
    from kafka import KafkaConsumer

    locked = authority.issue("three", password=SECRET)
    (tmp_path / "password").write_text(f"{SECRET}\n")
    tls = {"KAFKA_CA": str(authority.ca), "KAFKA_CERT": str(locked.cert), "KAFKA_KEY": str(locked.key)}
    own = SASL | tls | {"KAFKA_KEY_PASSWORD": SECRET, "KAFKA_PASSWORD_FILE": str(tmp_path / "password")}
    found, _ = options(**own)
    context = found.pop("ssl_context")
    assert found == {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "pulse",
        "sasl_plain_password": SECRET,
    }
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.get_ca_certs()[0]["subject"] == ((("commonName", "authority"),),)
    assert set(found) | {"ssl_context"} <= KafkaConsumer.DEFAULT_CONFIG.keys()
    assert set(found) | {"ssl_context"} <= set(AIOKafkaProducer.__init__.__code__.co_varnames)
    lax = options(**own, KAFKA_VERIFY_HOSTNAME="off")[0]["ssl_context"]
    assert (lax.verify_mode, lax.check_hostname) == (ssl.CERT_REQUIRED, False)


def test_redis_options_stand_beside_the_url(authority: Authority, tmp_path: Path) -> None:
    """The password and the files of TLS, whose key may be encrypted."""
    pair = authority.issue("four", password=SECRET)
    (tmp_path / "password").write_text(SECRET)
    given = settings(
        REDIS_URL="rediss://pulse@cache:6380/0",
        REDIS_PASSWORD_FILE=str(tmp_path / "password"),
        REDIS_CA=str(authority.ca),
        REDIS_CERT=str(pair.cert),
        REDIS_KEY=str(pair.key),
        REDIS_KEY_PASSWORD=SECRET,
    )
    assert redis_options(given) == {
        "password": SECRET,
        "ssl_ca_certs": str(authority.ca),
        "ssl_certfile": str(pair.cert),
        "ssl_keyfile": str(pair.key),
        "ssl_password": SECRET,
        "ssl_check_hostname": True,
    }


# ------------------------------------------------------------------ what is shown


def full_of_secrets() -> Settings:
    made = {name: SECRET for name in SECRETS if name != "REDIS_PASSWORD"} | SASL
    files = {f"{server}_{part}": part for server in ("KAFKA", "REDIS") for part in ("CA", "CERT", "KEY")}
    return settings(**made, **files, REDIS_URL=f"rediss://u:{quote(SECRET, safe='')}@cache:6380/0")


def written_forms(secret: str) -> set[str]:
    """How a secret may look in a text: as it is, percent-encoded, in base64 alone or after a user's name."""
    plain = [secret, f":{secret}", f"\0pulse\0{secret}"]
    return {secret, "Zebra7", quote(secret, safe="")} | {base64.b64encode(text.encode()).decode() for text in plain}


def test_secrets_are_shown_nowhere() -> None:
    """Neither as text, nor by repr or an error, nor by `pulseline config`; children are given them all the same."""
    found = full_of_secrets()
    assert len(SECRETS) == 4
    environ = {name: text for name, text in found.environ().items() if "Zebra7" in text}
    shown = [str(found), repr(found), f"{found.masked()}", repr({"settings": found})]
    runner = CliRunner()
    for arguments in (["config"], ["config", "--json"], ["config", "--help"]):
        told = runner.invoke(main, arguments, env=environ | found.environ(), standalone_mode=False)
        assert told.exception is None
        shown.append(told.output)
    for text in shown:
        assert not {form for form in written_forms(SECRET) if form in text}
    assert "***" in shown[0]
    assert len(environ) == len(SECRETS)
    assert Settings.from_environ(found.environ()) == found


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_is_no_flag(name: str) -> None:
    """A command line is open to every user of the machine; the flag is unknown, and its value is not repeated."""
    flag = f"--{name.lower().replace('_', '-')}"
    refused = CliRunner().invoke(main, ["config", f"{flag}={SECRET}"])
    assert refused.exit_code == 2
    assert "No such option" in refused.output
    assert "Zebra7" not in refused.output


def test_a_password_on_the_command_line_is_warned_of() -> None:
    """A URL may still hold one; without one, or from the environment, there is nothing to warn of."""
    url = f"redis://u:{quote(SECRET, safe='')}@cache/0"
    told = CliRunner().invoke(main, ["config", "--redis-url", url])
    assert "Warning: any user of this machine can read a command line" in told.output
    assert not {form for form in written_forms(SECRET) if form in told.output}
    assert "Warning" not in CliRunner().invoke(main, ["config", "--redis-url", "redis://u@cache/0"]).output
    assert "Warning" not in CliRunner().invoke(main, ["config"], env={"PULSELINE_REDIS_URL": url}).output


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://u:a/b?c#d@e@cache:1/2", "redis://u:***@cache:1/2"),
        ("redis://u:p://w@cache/0", "redis://u:***@cache/0"),
        ("u:secret@kafka:9092,b:1", "u:***@kafka:9092,b:1"),
        ("redis://cache/0?password=x&db=1", "redis://cache/0?password=***&db=1"),
        ("rediss://cache/0?ssl_password=x", "rediss://cache/0?ssl_password=***"),
        ("unix://u:p@/run/redis.sock", "unix://u:***@/run/redis.sock"),
        ("redis://u@cache/0", "redis://u@cache/0"),
        ("127.0.0.1:9092", "127.0.0.1:9092"),
    ],
)
def test_passwords_in_odd_places_are_hidden_too(text: str, shown: str) -> None:
    """Also where the password's own signs make the URL none."""
    assert mask(text) == shown
