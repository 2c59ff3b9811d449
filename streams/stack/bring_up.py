"""One way to bring the stack up, stop it and ask after it, however it runs."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from streams.settings import Settings, kafka_options, redis_options
from streams.stack.compose import COMPOSE_FILE, ComposeStack, compose_program
from streams.stack.kafka_server import kafka_answers
from streams.stack.local import LocalStack
from streams.stack.redis_server import redis_answers
from streams.stack.state import (
    BOOTSTRAP_VARIABLE,
    DEFAULT_BOOTSTRAP,
    DEFAULT_REDIS_URL,
    REDIS_VARIABLE,
    StackState,
    clear_state,
    read_state,
    stack_folder,
    write_state,
)
from streams.stack.waiting import Say, StackProblem, silent

Through = Literal["auto", "compose", "local"]

KAFKA_PORT = 9092
REDIS_PORT = 6379


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the two servers answer, and where."""

    bootstrap: str
    redis_url: str
    kafka: bool
    redis: bool

    @property
    def well(self) -> bool:
        return self.kafka and self.redis


def bring_up(environ: Mapping[str, str], *, through: Through = "auto", say: Say = silent) -> StackState:
    """Bring Kafka and Redis up, or find them running; returns their addresses. Raises StackProblem.

    Where the environment names both addresses there is nothing to start: they are only asked whether they answer.
    """
    folder = stack_folder(environ)
    if environ.get(BOOTSTRAP_VARIABLE) and environ.get(REDIS_VARIABLE):
        return _given(environ)
    running = read_state(folder)
    if running is not None and health(environ).well:
        return running
    folder.mkdir(parents=True, exist_ok=True)
    compose = _compose(folder, through, running, say)
    if compose is not None:
        try:
            state = compose.start()
        except StackProblem as problem:
            if through == "compose":
                raise
            say(f"{problem}\ngoing on without containers")
        else:
            write_state(folder, state)
            return state
    return _local(folder, say).start().state


def take_down(environ: Mapping[str, str], *, delete: bool = False, say: Say = silent) -> None:
    """Stop what `bring_up` started; `delete` also removes the data, but not what was fetched."""
    folder = stack_folder(environ)
    running = read_state(folder)
    compose = _compose(folder, "auto", running, say) if running is not None and running.how == "compose" else None
    if compose is not None:
        compose.stop(delete=delete)
        clear_state(folder)
        return
    stack = _local(folder, say)
    if delete:
        stack.wipe()
    else:
        stack.stop()


def health(environ: Mapping[str, str]) -> Health:
    """Ask both servers: those the environment names, with its credentials, else the running stack's or the defaults."""
    state = read_state(stack_folder(environ))
    bootstrap = environ.get(BOOTSTRAP_VARIABLE) or (state.bootstrap if state else DEFAULT_BOOTSTRAP)
    redis_url = environ.get(REDIS_VARIABLE) or (state.redis_url if state else DEFAULT_REDIS_URL)
    settings = Settings.from_environ(environ)
    kafka = kafka_options(settings) if environ.get(BOOTSTRAP_VARIABLE) else {}
    redis = redis_options(settings) if environ.get(REDIS_VARIABLE) else {}
    return Health(
        bootstrap, redis_url, kafka=kafka_answers(bootstrap, **kafka), redis=redis_answers(redis_url, **redis)
    )


def log_text(environ: Mapping[str, str], service: str | None, lines: int) -> str:
    """The last lines of the servers' logs."""
    folder = stack_folder(environ)
    running = read_state(folder)
    if running is not None and running.how == "compose":
        compose = _compose(folder, "auto", running, silent)
        if compose is not None:
            return compose.logs(service, lines)
    texts = []
    for name in (service,) if service else ("kafka", "redis"):
        path = folder / name / f"{name}.log"
        if path.exists():
            texts.append(f"== {path}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-lines:]))
    return "\n".join(texts)


def _given(environ: Mapping[str, str]) -> StackState:
    found = health(environ)
    for answers, variable, address in (
        (found.kafka, BOOTSTRAP_VARIABLE, found.bootstrap),
        (found.redis, REDIS_VARIABLE, without_secrets(found.redis_url)),
    ):
        if not answers:
            raise StackProblem(
                f"{variable} names {address}, and nothing answers there; start it, or unset the variable"
            )
    return StackState("given", found.bootstrap, found.redis_url)


def without_secrets(url: str) -> str:
    """The address of a URL without user and password."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}:{parts.port}{parts.path}"


def _compose(folder: Path, through: Through, running: StackState | None, say: Say) -> ComposeStack | None:
    """Docker Compose where it is wanted, possible, and not contradicted by servers that already run without it."""
    if through == "local" or (running is not None and running.how == "local" and _local(folder, silent).any_running):
        return None
    project = Path.cwd()
    program = compose_program() if (project / COMPOSE_FILE).exists() else None
    if program is None:
        if through == "compose":
            raise StackProblem(
                f"no container engine with Docker Compose answers here, or {project} holds no {COMPOSE_FILE}"
            )
        return None
    kafka_port, redis_port = KAFKA_PORT, REDIS_PORT
    if running is not None:
        kafka_port = int(running.bootstrap.rpartition(":")[2])
        redis_port = urlsplit(running.redis_url).port or REDIS_PORT
    return ComposeStack(program, project, kafka_port=kafka_port, redis_port=redis_port, say=say)


def _local(folder: Path, say: Say) -> LocalStack:
    return LocalStack(folder, kafka_port=KAFKA_PORT, redis_port=REDIS_PORT, say=say)
