"""Where the texts of settings come from: a `.env` file, the environment, flags."""

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from pathlib import Path

from streams.errors import InvalidSettings

PREFIX = "PULSELINE_"
RESERVED = "PULSELINE_TEST_"
"""Names with this prefix belong to the test suite and are not settings."""

NOTHING: Mapping[str, str] = {}


def gather(
    known: Collection[str],
    *,
    environ: Mapping[str, str],
    dotenv: Mapping[str, str] = NOTHING,
    stack: Mapping[str, str] = NOTHING,
    overrides: Mapping[str, str] = NOTHING,
) -> dict[str, tuple[str, str]]:
    """Setting name -> (text, source). Flags win over the environment, the `.env` file and the running stack.

    `known` are the names without prefix; another `PULSELINE_*` raises InvalidSettings. Empty ones are absent.
    """
    found: dict[str, tuple[str, str]] = {}
    for source, variables in (("stack", stack), (".env", dotenv), ("environment", environ)):
        for variable, text in variables.items():
            if variable.startswith(PREFIX) and not variable.startswith(RESERVED):
                name = _known(variable.removeprefix(PREFIX), known)
                if text:
                    found[name] = (text, source)
    return found | {_known(name, known): (text, "flag") for name, text in overrides.items()}


def _known(name: str, known: Collection[str]) -> str:
    if name in known:
        return name
    near = get_close_matches(name, known, n=1)
    hint = f"Did you mean {PREFIX}{near[0]}?" if near else "`pulseline config` lists them."
    raise InvalidSettings(f"{PREFIX}{name} is not a setting of Pulseline. {hint}")


def read_dotenv(path: Path) -> dict[str, str]:
    """Variables of a `.env` file ({} where there is none): NAME=value a line, quotes are taken off, `#` comments."""
    if not path.is_file():
        return {}
    found = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        line = line.strip().removeprefix("export ")
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        if not equals:
            raise InvalidSettings(f"Line {number} of {path} is not NAME=value.")
        value = value.strip()
        quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
        found[name.strip()] = value[1:-1] if quoted else value.split(" #")[0].rstrip()
    return found
