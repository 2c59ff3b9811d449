"""Nothing in the code turns bytes into code, starts a shell, trusts a server unseen or connects past the settings."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted(path for folder in ("models", "streams", "bench") for path in (ROOT / folder).rglob("*.py"))
# Formats that run what they read, and parsers that follow what is written in a document.
IMPORTS = frozenset(
    {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "jsonpickle", "dbm", "code", "codeop"}
    | {"pty", "imp", "runpy", "yaml", "xml", "telnetlib", "ftplib"}
)
CALLS = frozenset({"eval", "exec", "compile", "__import__", "breakpoint", "input"})
ATTRIBUTES = frozenset(
    {"os.system", "os.popen", "os.execl", "os.execlp", "subprocess.getoutput", "subprocess.getstatusoutput"}
    | {"asyncio.create_subprocess_shell", "tempfile.mktemp", "importlib.reload"}
    | {
        "ssl.CERT_NONE",
        "ssl.CERT_OPTIONAL",
        "ssl._create_unverified_context",
        "ssl.PROTOCOL_TLS",
        "ssl.TLSVersion.TLSv1",
    }
)
KEYWORDS = {
    ("shell", True),
    ("check_hostname", False),
    ("verify", False),
    ("ssl_cert_reqs", None),
    ("ssl_cert_reqs", "none"),
}


CLIENTS = frozenset(
    {"KafkaConsumer", "KafkaProducer", "KafkaAdminClient", "AIOKafkaConsumer", "AIOKafkaProducer", "EngagementProducer"}
    | {"RedisStore", "redis.Redis", "redis.Redis.from_url", "load_history", "create_conn"}
)


def dotted(node: ast.AST) -> str:
    """os.system of the expression; "" where it is no plain name."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (before := dotted(node.value)):
        return f"{before}.{node.attr}"
    return ""


def forbidden(source: str) -> list[str]:
    """What the source does that no module may do, with its line."""
    return [f"{what} in line {line}" for what, line in _found(ast.parse(source))]


def _found(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        match node:
            case ast.Import() | ast.ImportFrom():
                found = [f"import of {name}" for name in _imported(node) if _is_unwanted(name)]
            case ast.Attribute():
                found = [dotted(node)] if dotted(node) in ATTRIBUTES else []
            case ast.Call():
                found = _called(node)
            case ast.Assign(targets=[ast.Attribute(attr="check_hostname")], value=ast.Constant(value=False)):
                found = ["check_hostname = False"]
            case _:
                continue
        yield from ((what, node.lineno) for what in found)


def _imported(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]


def _is_unwanted(name: str) -> bool:
    return name.partition(".")[0] in IMPORTS or name in ATTRIBUTES


def _called(node: ast.Call) -> list[str]:
    built_in = [f"{node.func.id}()"] if isinstance(node.func, ast.Name) and node.func.id in CALLS else []
    constants = [(each.arg, each.value.value) for each in node.keywords if isinstance(each.value, ast.Constant)]
    return built_in + [f"{name}={value!r}" for name, value in constants if (name, value) in KEYWORDS]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_does_what_is_forbidden(path: Path) -> None:
    """No pickle, no evaluation, no shell, no server believed without its certificate."""
    assert forbidden(path.read_text()) == []


def unsecured(source: str) -> list[str]:
    """Clients of Kafka or Redis that are made without options from elsewhere: `Client(..., **options)`."""
    return [
        f"{dotted(node.func)} in line {node.lineno}"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        if dotted(node.func) in CLIENTS
        if all(keyword.arg is not None for keyword in node.keywords)
    ]


def test_every_client_is_given_the_credentials() -> None:
    """No command or worker connects past the settings' users, passwords and certificates."""
    found = {str(path): unsecured(path.read_text()) for path in MODULES if path.is_relative_to(ROOT / "streams")}
    assert {path: clients for path, clients in found.items() if clients} == {}


def test_a_client_without_credentials_is_found() -> None:
    """The test above can fail."""
    assert unsecured("KafkaConsumer(bootstrap_servers=at)")
    assert unsecured("redis.Redis.from_url(url)")
    assert not unsecured("RedisStore(url, app_id, **redis_options(settings))")


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from pickle import loads",
        "import xml.etree.ElementTree as tree",
        "import os\nos.system('ls')",
        "from os import system",
        "subprocess.run('ls', shell=True)",
        "eval('1')",
        "exec('x = 1')",
        "__import__('os')",
        "from yaml import load",
        "context.verify_mode = ssl.CERT_NONE",
        "context.check_hostname = False",
        "from ssl import CERT_NONE",
        "redis.Redis(ssl_cert_reqs=None)",
        "requests.get(url, verify=False)",
    ],
)
def test_what_is_forbidden_is_found(line: str) -> None:
    """The test above can fail."""
    assert forbidden(line)


def test_what_only_looks_alike_is_allowed() -> None:
    """Programs are started by lists of arguments; a method named compile or exec is not the built-in."""
    assert forbidden("import re, subprocess\nre.compile('a')\nsubprocess.run(['ls'])\npipe.exec()\nx.evaluate()") == []
