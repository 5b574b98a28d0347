"""How a command about slides ends: its exit code, and what to type to go on."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

import click

EXIT_OK, EXIT_FAILED = 0, 1

ARGUMENTS = "wsi_unet.arguments"
"""Key in `click.Context.meta`: the command line as typed, after the program's name."""


@dataclass(frozen=True)
class CommandOutcome:
    """How it ended.

    Attributes:
        exit_code: of the process.
        why: what the line before the command that goes on says; None prints neither.
        begun: whether anything was computed, which the next run must not throw away.
    """

    exit_code: int
    why: str | None = None
    begun: bool = False


INTERRUPTED = "interrupted; what is done is kept. To go on:"
INCOMPLETE = "some blocks failed; the rest is kept. To try just those again:"
LOST = "what is done is kept. To go on:"
UNFINISHED = "some slides aren't finished; the rest is kept. To try just those again:"


def show_resume_command(ending: CommandOutcome, arguments: Sequence[str]) -> None:
    """Print the very command that continues what was interrupted or failed in part.

    Args:
        ending: how it ended.
        arguments: as typed, after the program's name.
    """
    if ending.why is None:
        return
    again = [part for part in arguments if not (ending.begun and part == "--overwrite")]
    click.echo(ending.why, err=True)
    click.echo(f"  {shlex.join(['wsi-unet', *again])}", err=True)
