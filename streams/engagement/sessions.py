"""Sessions that are still open: intervals of a customer's clicks and cart events, no gap longer than 30 minutes.

An interval is a list [first_ms, last_ms, events, pages, cart_events, order_events]; a customer's are sorted and further
apart than the gap, so an event extends one, joins two, or starts one, whatever the order it is read in.
"""

from collections.abc import Sequence
from typing import Final

SESSION_GAP_MS: Final = 1_800_000
OPEN_SESSIONS_MAX: Final = 128

Interval = list[int]


def enter(sessions: list[Interval], occurred_at_ms: int, page: int, cart: int, order: int) -> None:
    """Put one event into the open sessions, in place. page, cart, order: 1 where the event counts as such."""
    newest = sessions[-1] if sessions else None
    if newest is None or occurred_at_ms > newest[1] + SESSION_GAP_MS:
        sessions.append([occurred_at_ms, occurred_at_ms, 1, page, cart, order])
    elif occurred_at_ms >= newest[0]:
        if occurred_at_ms > newest[1]:
            newest[1] = occurred_at_ms
        newest[2] += 1
        newest[3] += page
        newest[4] += cart
        newest[5] += order
    else:
        _join(sessions, [occurred_at_ms, occurred_at_ms, 1, page, cart, order])


def _join(sessions: list[Interval], joined: Interval) -> None:
    """Put in an event that is older than the newest session, joining what it brings together."""
    occurred_at_ms = joined[0]
    apart = []
    for session in sessions:
        if session[0] - SESSION_GAP_MS <= occurred_at_ms <= session[1] + SESSION_GAP_MS:
            joined[0] = min(joined[0], session[0])
            joined[1] = max(joined[1], session[1])
            joined[2:] = [mine + theirs for mine, theirs in zip(joined[2:], session[2:], strict=True)]
        else:
            apart.append(session)
    sessions[:] = sorted([*apart, joined])


def final(sessions: list[Interval], watermark_ms: int) -> list[Interval]:
    """Take out the sessions that no event in time can extend any more: the watermark passed their end plus the gap."""
    count = 0
    for session in sessions:
        if session[1] + SESSION_GAP_MS >= watermark_ms:
            break
        count += 1
    taken = sessions[:count]
    del sessions[:count]
    return taken


def pack(sessions: list[Interval], as_of_ms: int) -> list[int]:
    """Canonical: for each [age of the last event, length, events, pages, cart_events, order_events], in one list."""
    packed: list[int] = []
    for first_ms, last_ms, *counts in sessions:
        packed += (as_of_ms - last_ms, last_ms - first_ms, *counts)
    return packed


def unpack(packed: Sequence[int], as_of_ms: int) -> list[Interval]:
    """The open sessions that were packed as of `as_of_ms`."""
    sessions = []
    for at in range(0, len(packed), 6):
        age_ms, length_ms, *counts = packed[at : at + 6]
        last_ms = as_of_ms - age_ms
        sessions.append([last_ms - length_ms, last_ms, *counts])
    return sessions
