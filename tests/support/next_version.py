"""The version after this one: it knows one schema more, with a field more in each profile.

`python -m tests.support.next_version` runs its worker; with the words of a command, its `pulseline`.
"""

import sys
from runpy import run_module
from typing import Any

from streams.engagement import snapshot

NEXT = snapshot.SCHEMA + 1
MARK = "loyalty"


def install() -> None:
    """Turn this process into the next version; before anything else is imported."""
    snapshot.SCHEMA = NEXT  # type: ignore[misc]
    from streams.engagement.profile import Profile

    pack_hot, open_hot = Profile.pack_hot, Profile._open_hot

    def pack_with_field(self: Profile, schema: int = NEXT) -> bytes:
        packed = pack_hot(self, schema)
        return packed if schema < NEXT else snapshot.pack([*snapshot.unpack(packed), [MARK, self.rev]], schema)

    def open_with_field(self: Profile, hot: list[Any]) -> None:
        open_hot(self, without_field(hot))

    Profile.pack_hot, Profile._open_hot = pack_with_field, open_with_field  # type: ignore[method-assign]


def without_field(hot: list[Any]) -> list[Any]:
    """A hot field as the present version knows it."""
    return hot[:-1] if isinstance(hot[-1], list) and hot[-1][:1] == [MARK] else hot


def run() -> None:
    """Worker or command of the next version."""
    install()
    if len(sys.argv) < 2 or sys.argv[1].isdigit():
        run_module("streams.worker", run_name="__main__")
    from streams.cli import main

    main()


if __name__ == "__main__":
    run()
