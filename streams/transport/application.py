"""The Faust application and its worker process, as Pulseline sets them up."""

import asyncio
import gc
import logging
import os
import signal
import traceback
from collections.abc import Iterable
from threading import Timer
from typing import Any, NoReturn

import faust
import faust.app
from faust.worker import Worker as FaustWorker

from streams.engagement.snapshot import SCHEMA
from streams.errors import PulselineError
from streams.settings import Settings, mask
from streams.transport.credentials import faust_credentials
from streams.transport.logs import logging_config, rendered
from streams.transport.runs import RunScheduler
from streams.transport.tables import TableManager
from streams.transport.wiring import Wiring

logger = logging.getLogger(__name__)

EXIT_HUNG = 75
"""Exit code of a worker that did not stop in time and was cut off."""


class BootStrategy(faust.app.BootStrategy):
    """Never Faust's own web server: it binds every interface and serves tables."""

    enable_web = False
    app: "App"

    def sensors(self) -> Iterable[Any]:
        """What starts first and stops last: the app's own services come even before."""
        return [*self.app.front, *super().sensors()]


class Worker(FaustWorker):
    """The process of one worker: stops in time whatever hangs, and exits with the code of what stopped it."""

    app: "App"
    exit_code = 0

    def __init__(self, app: "App", *services: Any, **options: Any) -> None:
        super().__init__(app, *services, **options)
        self.spinner = None  # it would mangle a log that is read by programs
        app.process = self

    def stop_because(self, error: Exception) -> None:
        """Stop gracefully, then exit with the error's code."""
        self.exit_code = error.exit_code if isinstance(error, PulselineError) else 1
        if not self._signal_stop_time:
            self._start_deadline()
            self._signal_stop_time = self.loop.time()
            self._signal_stop_future = asyncio.ensure_future(self._stop_by_itself(), loop=self.loop)

    async def _stop_by_itself(self) -> None:
        await self.stop()
        if self._starting_fut is not None:
            self._starting_fut.cancel()

    def _schedule_shutdown(self, signal: signal.Signals) -> None:
        if not self._signal_stop_time:
            self._start_deadline()
        super()._schedule_shutdown(signal)

    def _start_deadline(self) -> None:
        """From now on a thread of its own ends the process in time, even where the event loop hangs."""
        # Rendered now: by then the log itself may be what hangs.
        last_words = rendered(
            logging.CRITICAL, "the worker did not stop in time and is cut off; what was not committed is replayed"
        )
        cut = Timer(self.app.wiring.shutdown_timeout_ms / 1_000 + 1, self._cut_off, (last_words,))
        cut.daemon = True
        cut.start()

    def _cut_off(self, last_words: str) -> None:
        os.write(2, last_words.encode())
        os._exit(self.exit_code or EXIT_HUNG)

    def execute_from_commandline(self) -> NoReturn:
        # Profiles are many and hold no cycles: the search for some took 22 % of a fold's time, and up to 0.2 s at once;
        # with these it takes 3 %.
        gc.freeze()
        gc.set_threshold(50_000, 10, 100)
        try:
            super().execute_from_commandline()
        except SystemExit as end:
            raise SystemExit(self.exit_code or end.code) from None


class App(faust.App):
    """Pulseline as a Faust application; `wiring` is set before it starts."""

    mundane_level = "debug"
    tables: TableManager
    wiring: Wiring
    front: tuple[Any, ...] = ()
    """Services that answer also while Kafka is waited for; set before the app starts."""
    process: Worker | None = None
    failure: Exception | None = None
    BootStrategy = BootStrategy

    def fatal(self, error: Exception) -> None:
        """Say once what is wrong, stop the worker, and let it exit with the error's code."""
        if self.failure is not None:
            return
        self.failure = error
        if isinstance(error, PulselineError):
            logger.critical("%s: %s", type(error).__name__, error)
        else:
            # Neither the message nor the values: they may be a customer's.
            frames = "".join(traceback.format_tb(error.__traceback__))
            logger.critical("a bug of ours, %s, stopped the worker:\n%s", type(error).__name__, frames)
        if self.process is not None:
            self.process.stop_because(error)

    def _create_directories(self) -> None:
        """Nothing: a worker keeps no files."""


def client_id(app_id: str) -> str:
    """The name a worker tells Kafka, which tells in turn up to which schema it reads state."""
    return f"{app_id}.schema{SCHEMA}"


def faust_app(settings: Settings, **options: Any) -> App:
    """Return the Faust application without its wiring, with further Faust settings; connects to nothing."""
    return App(
        settings.app_id,
        broker=[f"pulseline://{broker.strip()}" for broker in settings.kafka_bootstrap.split(",")],
        # Faust prints this one in its banner; the customers table has the whole URL.
        store=mask(settings.redis_url),
        broker_credentials=faust_credentials(settings),
        broker_client_id=client_id(settings.app_id),
        broker_request_timeout=settings.request_timeout_ms / 1_000,
        broker_session_timeout=min(settings.session_timeout_ms, settings.request_timeout_ms) / 1_000,
        # Keeps Faust's assignor, which gives a task's partitions to one worker; aiokafka's round robin splits them.
        table_standby_replicas=1,
        # Faust's own commits do nothing here, see Consumer.force_commit.
        broker_commit_interval=60.0,
        stream_buffer_maxsize=settings.buffer_runs_max,
        producer_compression_type="lz4",
        producer_max_batch_size=1 << 20,
        producer_max_request_size=(4 << 20) + (1 << 16),
        producer_request_timeout=settings.request_timeout_ms / 1_000,
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        web_bind=settings.web_host,
        worker_redirect_stdouts=False,
        logging_config=logging_config(settings.log_level, settings.log_format),
        ConsumerScheduler=RunScheduler,
        TableManager=TableManager,
        Worker=Worker,
        **options,
    )
