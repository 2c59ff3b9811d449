"""Closing a client within a time: whatever hangs, a worker that was told to stop has to go on to its end."""

import asyncio
from collections.abc import Awaitable
from typing import Any

from mode import get_logger

logger = get_logger(__name__)


async def closed_in_time(closing: Awaitable[Any], what: str, timeout_ms: int) -> None:
    """Wait for a client to close; beyond the time, or where it fails, say so and go on."""
    task = asyncio.ensure_future(closing)
    await asyncio.wait({task}, timeout=timeout_ms / 1_000)
    if not task.done():
        task.cancel()
        logger.warning("%s did not close within %d ms; it is left as it is", what, timeout_ms)
    elif not task.cancelled() and (error := task.exception()) is not None:
        logger.warning("%s did not close well (%s)", what, type(error).__name__)
