"""Print docs/reference/cli.md: what every command does and takes, as its help says."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from copy import copy

import click

from wsi_unet_cli.main import cli

HEAD = """\
# Commands

`--help` says the same, with explanations and examples. Options that several commands take are
described once:
"""
COMMANDS = re.compile(r"\n *Commands:\n(?: {2,}.*\n?)+")  # the list of a group's commands


def main() -> None:
    """Print each command's help as Markdown; shared options are described once, then named."""
    commands = dict(_commands())
    options = [param for command in commands.values() for param in _options(command)]
    times = Counter(map(_describe, options))
    shared = {_describe(option): option for option in options if times[_describe(option)] > 1}
    print(f"{HEAD}\n{_fenced(_help('', _bare(list(shared.values()))))}")
    for name, command in commands.items():
        own = copy(command)
        own.help = (command.help or "").partition("\n\n")[0]
        own.epilog = _exit_codes(command)
        own.params = [param for param in command.params if _describe(param) not in shared]
        own.add_help_option = False
        print(f"\n## {name}\n\n{_fenced(_help(name, own))}")
        also = [param.opts[-1] for param in command.params if _describe(param) in shared]
        if also:
            print(f"\nAlso `{' '.join(also)}`.")


def _commands() -> Iterator[tuple[str, click.Command]]:
    """Yield names and commands, each group before its own."""
    yield "wsi-unet", cli
    for name, command in cli.commands.items():
        yield f"wsi-unet {name}", command
        if isinstance(command, click.Group):
            for below, nested in command.commands.items():
                yield f"wsi-unet {name} {below}", nested


def _options(command: click.Command) -> list[click.Option]:
    """Return a command's options, with its help option."""
    context = click.Context(command, parent=click.Context(cli, **cli.context_settings))
    return [param for param in command.get_params(context) if isinstance(param, click.Option)]


def _exit_codes(command: click.Command) -> str:
    """Return the paragraph of a command's help that says what its exit codes mean, if any does."""
    paragraphs = (command.epilog or "").split("\n\n")
    return "".join(each for each in paragraphs if each.startswith("Exit codes"))


def _describe(param: click.Parameter) -> tuple[str, str]:
    """Return an option's names and help; a command's arguments are never the same."""
    context = click.Context(click.Command(""))
    return param.get_help_record(context) or (str(id(param)), "")


def _help(name: str, command: click.Command) -> str:
    """Return a command's help, without a list of commands; of a nameless one the options only."""
    context = click.Context(command, info_name=name, terminal_width=100, max_content_width=100)
    text = COMMANDS.sub("", command.get_help(context))
    return text if name else text.partition("Options:\n")[2]


def _bare(options: list[click.Option]) -> click.Command:
    """Return a command that has nothing but these options."""
    return click.Command("", params=[*options], add_help_option=False)


def _fenced(text: str) -> str:
    return f"```text\n{text.strip(chr(10)).rstrip()}\n```"


if __name__ == "__main__":
    main()
