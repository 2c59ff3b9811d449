"""The Faust agents: one per input topic, each feeding runs of records to the processor."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from streams.processing.ports import Run
from streams.transport.runs import RunSchema

if TYPE_CHECKING:
    from streams.processing.processor import Processor


def register_agents(app: Any, processor: "Processor", topics: Iterable[str]) -> None:
    """Register an agent for each input topic (full names); it is named after the topic's part of the name.

    Topics are declared without acks: Faust neither tracks nor commits their offsets.
    """
    for name in topics:
        topic = app.topic(name, schema=RunSchema(), acks=False, internal=False)
        app.agent(topic, name=agent_name(name))(_applying(app, processor))


def agent_name(topic: str) -> str:
    """`clickstream` of `engagement.clickstream.v1`."""
    return topic.split(".")[-2]


def _applying(app: Any, processor: "Processor") -> Any:
    async def apply_runs(runs: Any) -> None:
        run: Run
        async for run in runs:
            try:
                await processor.apply(run)
            except Exception as error:  # noqa: BLE001 - Faust would drop the run and go on: records lost in silence
                app.fatal(error)

    return apply_runs
