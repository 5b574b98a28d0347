"""Print docs/reference/cli.md: what every command takes, as its help says."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from copy import copy

import click

from wsi_unet_cli.main import cli

HEAD = """\
# Commands

From the commands' own help, by `make docs`; for examples see `--help` and
[How do I …](../how-do-i.md). Options that several commands share stand here once:
"""
MANY = 3  # commands that make an option a shared one


def main() -> None:
    """Print each command's help as Markdown, without examples and shared options."""
    commands = dict(_commands())
    options = [param for command in commands.values() for param in _options(command)]
    times = Counter(map(_told, options))
    shared = {_told(option): option for option in options if times[_told(option)] >= MANY}
    print(f"{HEAD}\n{_fenced(_help('', _bare(list(shared.values()))))}")
    for name, command in commands.items():
        own = copy(command)
        own.params = [param for param in command.params if _told(param) not in shared]
        own.add_help_option = False
        print(f"\n## {name}\n\n{_fenced(_help(name, own))}")


def _commands() -> Iterator[tuple[str, click.Command]]:
    """Yield names and commands, each group before its own."""
    yield "wsi-unet", cli
    for name, command in cli.commands.items():
        yield f"wsi-unet {name}", command
        if isinstance(command, click.Group):
            for below, nested in command.commands.items():
                yield f"wsi-unet {name} {below}", nested


def _options(command: click.Command) -> list[click.Option]:
    """Return a command's options, its help option among them."""
    context = click.Context(command, parent=click.Context(cli, **cli.context_settings))
    return [param for param in command.get_params(context) if isinstance(param, click.Option)]


def _told(param: click.Parameter) -> tuple[str, str]:
    """Return what the help says of an option; a command's arguments are never the same."""
    context = click.Context(click.Command(""))
    return param.get_help_record(context) or (str(id(param)), "")


def _help(name: str, command: click.Command) -> str:
    """Return a command's help, without its examples; of a nameless one the options only."""
    context = click.Context(command, info_name=name, terminal_width=100, max_content_width=100)
    text = re.sub(r"\n *Examples:\n(?: {4}.*\n?)+", "", command.get_help(context))
    return text if name else text.partition("Options:\n")[2]


def _bare(options: list[click.Option]) -> click.Command:
    """Return a command that has nothing but these options."""
    return click.Command("", params=[*options], add_help_option=False)


def _fenced(text: str) -> str:
    return f"```text\n{text.strip(chr(10)).rstrip()}\n```"


if __name__ == "__main__":
    main()
