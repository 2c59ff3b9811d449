"""A user's own code in the worker: an agent and a task of the same Faust app that read the customers table.

Each answer is a JSON line on stdout; whom they ask about stands in ASK, separated by commas.
"""

import asyncio
import json
import os
from typing import Any

from streams.errors import ReadOnlyTable
from streams.worker import app

customers: Any = app.tables["customers"]
questions: Any = app.channel()
ASK = os.environ["ASK"].split(",")


def write(asker: str) -> str:
    """What came of an attempt to write."""
    try:
        customers[ASK[0]] = {"score": "100.00", "by": asker}
    except ReadOnlyTable as refusal:
        return str(refusal)
    return "written"


def tell(asker: str, customer_id: str) -> bool:
    """Tell what the table has of a customer; whether it has anything."""
    try:
        view = customers[customer_id]
    except KeyError:
        return False
    print(json.dumps({"asker": asker, "view": view, "write": write(asker)}), flush=True)
    return True


@app.agent(questions)
async def answer(asked: Any) -> None:
    async for customer_id in asked:
        tell("agent", customer_id)


@app.task
async def ask() -> None:
    for customer_id in ASK:
        while not tell("task", customer_id):  # noqa: ASYNC110 - nothing tells when a profile comes
            await asyncio.sleep(0.1)
        await questions.send(value=customer_id)
