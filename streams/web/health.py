"""The health server of a worker: `/health/live`, `/health/ready` and `/metrics`, on WEB_HOST at WEB_PORT."""

import json
from typing import Any

from aiohttp import web
from mode import Service, get_logger

from streams.web.exposition import CONTENT_TYPE, Exposition
from streams.web.readiness import Readiness

logger = get_logger(__name__)

CLOSE_WITHIN_S = 0.2


class HealthServer(Service):
    """Answers while the event loop turns; a port that is taken is told, and the worker goes on without.

    port: the worker's own, 0 for none.
    """

    mundane_level = "debug"
    logger = logger

    def __init__(self, readiness: Readiness, exposition: Exposition, *, host: str, port: int) -> None:
        super().__init__()
        self.readiness, self.exposition, self.host, self.port = readiness, exposition, host, port
        self._runner: web.AppRunner | None = None

    async def on_start(self) -> None:
        if not self.port:
            return
        pages = web.Application(client_max_size=1_024)
        pages.add_routes(
            [
                web.get("/health/live", self.live),
                web.get("/health/ready", self.ready),
                web.get("/metrics", self.metrics),
            ]
        )
        self._runner = web.AppRunner(pages, access_log=None, handle_signals=False, shutdown_timeout=CLOSE_WITHIN_S)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self.host, self.port).start()
        except OSError as error:
            logger.warning(
                "nothing answers health checks: %s:%d cannot be listened on (%s). The worker goes on; give it another "
                "PULSELINE_WEB_PORT, or 0",
                self.host,
                self.port,
                error.strerror,
            )
        else:
            logger.info("health checks are answered at http://%s:%d/health/ready", self.host, self.port)

    async def on_stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def live(self, _: web.Request) -> web.Response:
        """200 while the worker can get well by itself."""
        return _answer("live", self.readiness.unwell())

    async def ready(self, _: web.Request) -> web.Response:
        """200 while the worker does all its work."""
        return _answer("ready", await self.readiness.reasons())

    async def metrics(self, _: web.Request) -> web.Response:
        """Counters for Prometheus."""
        return web.Response(text=self.exposition.text(), headers={"Content-Type": CONTENT_TYPE})


def _answer(name: str, reasons: list[str]) -> web.Response:
    told: dict[str, Any] = {name: not reasons, "reasons": reasons}
    return web.json_response(told, status=503 if reasons else 200, dumps=lambda value: json.dumps(value) + "\n")
