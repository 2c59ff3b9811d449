"""`pulseline demo`: the whole of it on this machine in a minute, and a check that nothing was lost or made up."""

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from typing import Any

import click
from kafka.errors import KafkaError

from models.outputs import parse_duration
from models.topics import TOPICS, topic_name
from streams.cli.board import Board
from streams.cli.checks import Check, Seen, await_accounted, checks_table, demo_checks
from streams.cli.options import SettingsCommand, sources, takes_flags
from streams.cli.processes import end_leftover, stop, workers
from streams.cli.progress import Waiting
from streams.cli.shop import Group, Shop
from streams.cli.state import forget_app
from streams.cli.topics import admin_of, apply_topics
from streams.cli.watch import Follower, show
from streams.errors import PulselineError
from streams.producer.ledger import Ledger
from streams.producer.simulator import LiveSimulator
from streams.settings import PREFIX, Settings
from streams.stack.bring_up import bring_up, take_down, without_secrets
from streams.stack.state import BOOTSTRAP_VARIABLE, FOLDER_VARIABLE, REDIS_VARIABLE, read_state, stack_folder
from streams.stack.waiting import StackProblem

OWN = "demo"
"""APP_ID and TOPIC_PREFIX of the demo, which makes both anew at every start: never those of anything else."""

PRESETS = {
    "APP_ID": OWN,
    "TOPIC_PREFIX": OWN,
    "CART_STEPS": "15s,30s,60s",
    "LATENESS": "2s",
    "WORKERS": "2",
    "WEB_PORT": "0",
    "METRICS_INTERVAL": "2s",
}
ACCOUNT_S = 30.0


class DemoProblem(PulselineError):
    """The demo could not go on."""


def _say(message: str) -> None:
    click.echo(message, err=True)


def demo_settings(flags: dict[str, str]) -> Settings:
    """The demo's settings: its presets under what flags, environment and .env say, but always its own names."""
    found = sources(flags)
    for name in ("APP_ID", "TOPIC_PREFIX"):
        if name in found and found[name][0] != OWN:
            _say(f"The demo keeps its own {name} ({OWN}): it deletes what it left there before.")
    chosen = {name: (text, "demo") for name, text in PRESETS.items()}
    overridden = {name: given for name, given in found.items() if name not in {"APP_ID", "TOPIC_PREFIX"}}
    return Settings.from_sources(chosen | overridden)


@contextlib.contextmanager
def stack(flags: dict[str, str], *, keep: bool) -> Iterator[None]:
    """A running Kafka and Redis, in the environment of what follows; one that was not running before is stopped."""
    environ = dict(os.environ)
    found = sources(flags)
    for name, (text, source) in found.items():
        if name.startswith(("KAFKA_", "REDIS_")) and source != "stack":
            environ[PREFIX + name] = text
    if "STACK_DIR" in found:
        environ[FOLDER_VARIABLE] = os.environ[FOLDER_VARIABLE] = found["STACK_DIR"][0]
    ran_before = read_state(stack_folder(environ)) is not None
    try:
        state = bring_up(environ, say=_say)
        _say(f"Kafka {state.bootstrap} and Redis {without_secrets(state.redis_url)} are ready")
        yield
    except StackProblem as problem:
        raise DemoProblem(str(problem)) from problem
    finally:
        named = BOOTSTRAP_VARIABLE in environ and REDIS_VARIABLE in environ
        if not (keep or ran_before or named):
            _say("stopping Kafka and Redis")
            take_down(environ)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Only one demo at a time on one stack."""
    path = stack_folder() / "demo.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            flock(lock, LOCK_EX | LOCK_NB)
        except OSError:
            raise DemoProblem(f"another demo runs on this stack ({path} is held)") from None
        yield


def begin_anew(settings: Settings) -> None:
    """Delete the demo's topics, group and state of the last time, and create the topics."""
    with admin_of(settings) as admin:
        wanted = {topic_name(settings.topic_prefix, suffix) for suffix in TOPICS}
        old = sorted(wanted & set(admin.list_topics()))
        if old:
            admin.delete_topics(old)
            with Waiting("waiting until the topics of the last demo are gone") as waiting:
                while wanted & set(admin.list_topics()):
                    waiting.tick()
                    time.sleep(0.1)
        with contextlib.suppress(KafkaError):
            admin.delete_groups([settings.app_id])
    forget_app(settings)
    apply_topics(settings)


def _log_tail(path: Path, lines: int = 15) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])


def play(settings: Settings, *, seed: int, rate: float, end_s: float | None, begun_s: float) -> bool:
    """Play the demo until `end_s` (monotonic; None: Ctrl-C); return whether every check held."""
    folder = stack_folder() / "demo"
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "workers.log"
    board = Board(begun_s=begun_s)
    with contextlib.ExitStack() as running:
        end_leftover(log.with_suffix(".pid"))
        _say("creating topics")
        begin_anew(settings)
        _say(f"starting {settings.workers} workers (their log is {log})")
        process = running.enter_context(workers(settings, log))
        ledger = running.enter_context(Ledger(folder / "sent.jsonl"))
        shop = Shop(settings, ledger, seed=seed, rate=rate)
        follower = Follower(settings, board, also=_answering(shop.simulator))
        group = Group(settings)
        for thread in (follower, group):
            thread.start()
            running.callback(thread.stop)
        if not follower.ready.wait(20):
            raise DemoProblem("the output topics cannot be followed")
        shop.start()
        running.callback(shop.simulator.stop)

        def ending() -> bool:
            if process.poll() is not None:
                raise DemoProblem(f"the workers ended with exit code {process.returncode}:\n{_log_tail(log)}")
            if shop.error is not None:
                raise shop.error
            return end_s is not None and time.monotonic() >= end_s

        def title() -> str:
            return f"{ledger.records:,} records sent, {group.workers} workers"

        with contextlib.suppress(KeyboardInterrupt):
            show(follower, title, ending)
        quietly(signal.SIGINT)
        shop.stop()
        in_log, account = await_accounted(settings, ACCOUNT_S)
        time.sleep(1)  # what was decided last is still on its way to the screen
        for line in follower.lines():
            if not sys.stdout.isatty():
                click.echo(line)
        first_s = board.first_trigger_s
        since_s = None if first_s is None or shop.first_event_s is None else first_s + begun_s - shop.first_event_s
        seen = Seen(group.most, first_s, since_s)
        checks = demo_checks(settings, board=board, ledger=ledger, seen=seen, in_log=in_log, account=account)
        _say("stopping the workers")
        code = stop(process)
    from rich.console import Console

    checks.append(Check("the workers stopped in order", code == 0, f"exit code {code}"))
    Console(highlight=False, width=None if sys.stdout.isatty() else 130).print(checks_table(checks))
    return all(check.held for check in checks)


def _answering(simulator: LiveSimulator) -> Callable[[str, Any], None]:
    def hear(suffix: str, record: Any) -> None:
        if suffix == "triggers.v1":
            simulator.answer(json.loads(record.value))

    return hear


def quietly(number: signal.Signals) -> None:
    """From here on everything is being stopped: another Ctrl-C must not leave half of it running."""
    signal.signal(number, signal.SIG_IGN)


def _terminated(number: int, frame: Any) -> None:  # noqa: ARG001
    raise KeyboardInterrupt


@click.command(cls=SettingsCommand)
@click.option("--duration", help="End by itself after this time (90s); exit code 0 only if every check held.")
@click.option("--seed", default=1, show_default=True, help="The same seed plays the same shoppers.")
@click.option("--rate", default=40.0, show_default=True, help="Records a second.")
@click.option("--keep", is_flag=True, help="Leave Kafka and Redis running at the end.")
@takes_flags
def demo(flags: dict[str, str], *, duration: str | None, seed: int, rate: float, keep: bool) -> None:
    """See it all at work in a minute: Kafka and Redis are brought up, two workers and simulated shoppers started.

    Carts are abandoned after 15, 30 and 60 seconds, so that triggers come while you watch. Ctrl-C ends it.
    """
    begun_s = time.monotonic()
    try:
        length_ms = None if duration is None else parse_duration(duration)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--duration") from None
    signal.signal(signal.SIGTERM, _terminated)
    with alone(), stack(flags, keep=keep):
        settings = demo_settings(flags)
        end_s = None if length_ms is None else time.monotonic() + length_ms / 1_000
        held = play(settings, seed=seed, rate=rate, end_s=end_s, begun_s=begun_s)
    sys.exit(0 if held or length_ms is None else 1)
