"""`pulseline customer` and `pulseline explain`: plain answers about one customer and one trigger."""

import json
from typing import Any

import click

from streams.cli.board import clock, money
from streams.cli.options import SettingsCommand, takes_settings
from streams.cli.progress import Waiting
from streams.cli.state import read_profile
from streams.cli.tail import read_through
from streams.errors import PulselineError
from streams.settings import Settings


class Unknown(PulselineError):
    """Nothing is known of what was asked for."""


def profile_view(settings: Settings, customer_id: str) -> dict[str, Any]:
    """The customer's profile as plain values; Unknown where there is none."""
    profile = read_profile(settings, customer_id)
    if profile is None:
        raise Unknown(
            f"no profile of this customer under APP_ID {settings.app_id} (no event of theirs was applied yet)"
        )
    return profile.view(settings.rules().score_model)


@click.command(cls=SettingsCommand)
@click.argument("customer_id")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
@takes_settings
def customer(settings: Settings, *, customer_id: str, as_json: bool) -> None:
    """Show one customer's profile as of the last commit: score, counters, sessions, open carts."""
    view = profile_view(settings, customer_id)
    if as_json:
        click.echo(json.dumps(view, indent=2, ensure_ascii=False))
        return
    click.echo(f"customer   {view['customer_id']}")
    click.echo(f"score      {view['score']} (" + ", ".join(f"{k} {v}" for k, v in view["contributions"].items()) + ")")
    seen = "never" if view["last_seen_ms"] is None else moment(view["last_seen_ms"])
    click.echo(f"seen       {seen}; {view['rev']} events, the newest of {moment(view['as_of_ms'])}")
    for name, counts in view["counters"].items():
        click.echo(f"           {name:<24}" + "  ".join(f"{window} {number}" for window, number in counts.items()))
    for session in view["sessions"]:
        click.echo(
            f"session    {moment(session['first_ms'])} to {clock(session['last_ms'])}: {session['events']} events, "
            f"{session['pages']} pages"
        )
    for cart in view["carts"]:
        _echo_cart(cart)
    if view["waiting"]:
        click.echo(f"waiting    {view['waiting']} cart events, until everything before them has been seen")


def _echo_cart(cart: dict[str, Any]) -> None:
    fired = ", ".join(cart["fired"]) or "none"
    click.echo(
        f"{cart['kind']:<10} {cart['cart_id'] or '(the one without an id)'}: "
        f"last touched {moment(cart['last_touch_ms'])}, steps fired: {fired}"
    )
    for line in cart["lines"]:
        name = line["name"] or line["product_id"]
        price = money(line["unit_price_minor"], line["currency"]) or "no price"
        click.echo(f"           {line['quantity']} x {name} at {price}")


def moment(ms: int) -> str:
    """A date and time, UTC."""
    from datetime import UTC, datetime

    return f"{datetime.fromtimestamp(ms / 1_000, UTC):%Y-%m-%d %H:%M:%S}"


def find_trigger(settings: Settings, trigger_id: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(the trigger, its cancels and outcomes), read from the topics; Unknown where the topic holds no such trigger."""
    found: dict[str, Any] | None = None
    after: list[dict[str, Any]] = []
    with Waiting("reading triggers and outcomes") as waiting:
        topics = ("triggers.v1", "outcomes.v1")
        for _, record in read_through(settings, topics, lambda read, total: waiting.tick(f"{read:,} of {total:,}")):
            if trigger_id.encode() not in record.value:
                continue
            value = json.loads(record.value)
            if value.get("trigger_id") == trigger_id:
                found = value
            elif trigger_id in value.get("trigger_ids", ()):
                after.append(value)
    if found is None:
        raise Unknown(
            f"the topic {settings.topic('triggers')} holds no trigger {trigger_id}; it keeps them for 14 days"
        )
    return found, sorted(after, key=lambda value: (value["occurred_at_ms"], value.get("action", "")))


@click.command(cls=SettingsCommand)
@click.argument("trigger_id")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
@takes_settings
def explain(settings: Settings, *, trigger_id: str, as_json: bool) -> None:
    """Say why a trigger fired, what became of it, and how its cart stands now."""
    trigger, after = find_trigger(settings, trigger_id)
    profile = read_profile(settings, trigger["customer_id"])
    carts = [] if profile is None else profile.view(settings.rules().score_model)["carts"]
    cart = next((each for each in carts if each["cart_id"] == trigger["cart_id"]), None)
    if as_json:
        click.echo(json.dumps({"trigger": trigger, "after": after, "cart": cart}, indent=2, ensure_ascii=False))
        return
    for line in explanation(trigger, after, cart):
        click.echo(line)


def explanation(trigger: dict[str, Any], after: list[dict[str, Any]], cart: dict[str, Any] | None) -> list[str]:
    """The reasons in sentences."""
    what = "checkout" if trigger["kind"] == "checkout" else "cart"
    named = f"{what} {trigger['cart_id']}" if trigger["cart_id"] else f"{what} (the one without an id)"
    total = money(trigger["total_minor"], trigger["currency"]) or "no known total"
    lines = [
        f"Customer {trigger['customer_id']} left the {named} with {trigger['items_count']} item(s), {total}.",
        f"{moment(trigger['last_touch_ms'])}  last touch of the cart",
        f"{moment(trigger['due_ms'])}  step {trigger['step']} was due: no touch and no order up to then",
        f"{moment(trigger['emitted_ms'])}  the trigger was decided with a score of {trigger['score']:.2f}",
    ]
    lines += [f"{moment(each['occurred_at_ms'])}  {_what_came(each)}" for each in after]
    if cart is None:
        lines.append("Now the cart is closed.")
    elif trigger["step"] in cart["fired"] and cart["last_touch_ms"] == trigger["last_touch_ms"]:
        lines.append("Now the cart is still open and untouched since: the trigger holds.")
    else:
        lines.append(f"Now the cart is open, last touched {moment(cart['last_touch_ms'])}.")
    return lines


def _what_came(value: dict[str, Any]) -> str:
    if value.get("action") == "cancel":
        return f"cancelled: the cart was {value['reason']}"
    order = money(value["order_total_minor"], value["currency"])
    return f"outcome: {value['outcome']}" + (f", by an order of {order}" if order else "")
