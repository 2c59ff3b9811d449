"""How many kinds of log lines are told apart while an outage lasts."""

import logging

from streams.transport.logs import KINDS_MAX, Thinning


def test_kinds_of_lines_are_bounded() -> None:
    """A message that never says the same thing twice takes no more memory than a thousand others."""
    thinning = Thinning()
    for number in range(2_500):
        thinning.filter(logging.LogRecord("streams", logging.INFO, "", 0, f"kind {number}", None, None))
    assert KINDS_MAX == 1_000
    assert len(thinning._seen) <= 1_000
