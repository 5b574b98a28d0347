"""Print docs/reference/cli.md: what every command says of itself."""

from __future__ import annotations

from collections.abc import Iterator

import click
from click.testing import CliRunner

from wsi_unet_cli.main import cli

HEAD = """\
# The command line

What `wsi-unet --help` and its commands say; made by `make docs`.
"""


def main() -> None:
    """Print the help of the program and of each command as Markdown."""
    parts = [HEAD]
    for command in ("", *_commands()):
        arguments = [*command.split(), "--help"]
        text = CliRunner().invoke(
            cli, arguments, prog_name="wsi-unet", env={"COLUMNS": "100"}, terminal_width=100
        )
        title = f"wsi-unet {command}".strip()
        parts.append(f"## {title}\n\n```text\n{text.stdout.rstrip()}\n```\n")
    print("\n".join(parts), end="")


def _commands() -> Iterator[str]:
    """Yield the commands, each group before its own."""
    for name, command in cli.commands.items():
        yield name
        if isinstance(command, click.Group):
            yield from (f"{name} {below}" for below in command.commands)


if __name__ == "__main__":
    main()
