"""Every setting as a flag of a command."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import click

from streams.settings import PREFIX, Settings, accepts, gather, is_secret, mask, names, read_dotenv
from streams.stack.state import stack_environ


class SettingsCommand(click.Command):
    """A command whose help lists the flags of settings in a section of their own, after its own options."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        own: list[tuple[str, str]] = []
        settings: list[tuple[str, str]] = []
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                (settings if isinstance(parameter, SettingFlag) else own).append(record)
        for title, records in (("Options", own), ("Settings (also PULSELINE_* and .env)", settings)):
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


class SettingFlag(click.Option):
    """The flag of one setting, kept as text: the settings read it."""


def _flag(name: str, attribute: str) -> SettingFlag:
    field = Settings.model_fields[attribute]
    default = Settings.model_construct().masked()[name]
    shown = f"{field.description} ({accepts(attribute)})" + (f" [{default}]" if default else "")
    switch: dict[str, Any] = {"is_flag": False, "flag_value": "on"} if _is_switch(attribute) else {}
    return SettingFlag(
        [f"--{name.lower().replace('_', '-')}", f"setting_{attribute}"], metavar="TEXT", help=shown, **switch
    )


def _is_switch(attribute: str) -> bool:
    annotation = Settings.model_fields[attribute].annotation
    return annotation is bool or bool in get_args(annotation)


def flags_of(parameters: dict[str, Any]) -> tuple[dict[str, str], dict[str, Any]]:
    """Split a command's parameters into (setting name -> text of the flags that were given, its own parameters)."""
    given = {
        name: parameters[f"setting_{attribute}"]
        for name, attribute in names().items()
        if parameters.get(f"setting_{attribute}") is not None
    }
    return given, {key: value for key, value in parameters.items() if not key.startswith("setting_")}


def sources(flags: dict[str, str]) -> dict[str, tuple[str, str]]:
    """Setting name -> (text, source) of every setting that is not a default."""
    dotenv = read_dotenv(Path(".env"))
    return gather(
        names(), stack=stack_environ(dotenv | dict(os.environ)), dotenv=dotenv, environ=os.environ, overrides=flags
    )


def takes_flags(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command every setting as a flag; its function gets those that were given, name -> text, first."""

    def run(**parameters: Any) -> Any:
        flags, own = flags_of(parameters)
        return function(flags, **own)

    run.__doc__ = function.__doc__
    run.__name__ = function.__name__
    settings = [_flag(name, attribute) for name, attribute in names().items() if not is_secret(attribute)]
    # click gathers parameters there, last one first.
    run.__click_params__ = settings[::-1] + getattr(function, "__click_params__", [])  # type: ignore[attr-defined]
    return run


def takes_settings(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same for a function that gets the settings themselves first."""

    def run(flags: dict[str, str], **own: Any) -> Any:
        return function(load(flags), **own)

    run.__doc__ = function.__doc__
    run.__name__ = function.__name__
    run.__click_params__ = getattr(function, "__click_params__", [])  # type: ignore[attr-defined]
    return takes_flags(run)


def load(flags: dict[str, str]) -> Settings:
    """The settings of flags, environment, `.env` and the running stack; warnings go to the terminal."""
    settings = Settings.from_sources(sources(flags))
    if mask(flags.get("REDIS_URL", "")) != flags.get("REDIS_URL", ""):
        click.echo(f"Warning: any user of this machine can read a command line: use {PREFIX}REDIS_PASSWORD.", err=True)
    for warning in settings.warnings():
        click.echo(f"Warning: {warning}", err=True)
    return settings
