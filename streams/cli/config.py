"""`pulseline config`: what is set, and by what."""

import json
from typing import Any

import click

from streams.cli.options import SettingsCommand, flags_of, sources, takes_settings
from streams.settings import PREFIX, Settings


@click.command(cls=SettingsCommand)
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
@takes_settings
def config(settings: Settings, *, as_json: bool) -> None:
    """Show every setting, its value and where that comes from; passwords are hidden."""
    flags, _ = flags_of(click.get_current_context().params)
    found = sources(flags)
    shown: dict[str, Any] = {
        PREFIX + name: {"value": text, "source": found[name][1] if name in found else "default"}
        for name, text in settings.masked().items()
    }
    if as_json:
        click.echo(json.dumps(shown, indent=2))
        return
    wide = max(map(len, shown))
    for name, setting in shown.items():
        origin = "" if setting["source"] == "default" else f"   ({setting['source']})"
        click.echo(f"{name:<{wide}}  {setting['value']}{origin}")
