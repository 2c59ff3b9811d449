"""Where the stack lives: the small file in its data folder that `pulseline`, the demo and the tests read."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

DEFAULT_BOOTSTRAP = "127.0.0.1:9092"
DEFAULT_REDIS_URL = "redis://127.0.0.1:6379/0"
BOOTSTRAP_VARIABLE = "PULSELINE_KAFKA_BOOTSTRAP"
REDIS_VARIABLE = "PULSELINE_REDIS_URL"
FOLDER_VARIABLE = "PULSELINE_STACK_DIR"

How = Literal["local", "compose", "given"]


@dataclass(frozen=True, slots=True)
class StackState:
    """Addresses of a stack that was brought up, and how it runs."""

    how: How
    bootstrap: str
    redis_url: str


def stack_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """The data folder: PULSELINE_STACK_DIR, else .pulseline in the current folder."""
    return Path(environ.get(FOLDER_VARIABLE) or ".pulseline").absolute()


def read_state(folder: Path) -> StackState | None:
    """The stack that runs from this folder; None when none was brought up."""
    try:
        fields = json.loads((folder / "stack.json").read_text())
        return StackState(how=fields["how"], bootstrap=fields["bootstrap"], redis_url=fields["redis_url"])
    except (FileNotFoundError, ValueError, KeyError):
        return None


def write_state(folder: Path, state: StackState) -> None:
    """Store the addresses; readers see the old file or the new one, never half of it."""
    scratch = folder / "stack.json.new"
    scratch.write_text(json.dumps(asdict(state), indent=2) + "\n")
    scratch.replace(folder / "stack.json")


def clear_state(folder: Path) -> None:
    """Forget the stack that was stopped."""
    (folder / "stack.json").unlink(missing_ok=True)


def stack_environ(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """PULSELINE_KAFKA_BOOTSTRAP and PULSELINE_REDIS_URL of the running stack, without those that `environ` sets itself.

    Lay it under the environment: explicit settings win over the stack, the stack wins over the defaults.
    """
    state = read_state(stack_folder(environ))
    if state is None:
        return {}
    found = {BOOTSTRAP_VARIABLE: state.bootstrap, REDIS_VARIABLE: state.redis_url}
    return {name: value for name, value in found.items() if not environ.get(name)}
