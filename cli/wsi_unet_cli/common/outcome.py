"""Outcomes of commands: the exit code, and the command that resumes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wsi_unet_cli.common.output import say
from wsi_unet_cli.common.text import shell_word

EXIT_OK, EXIT_FAILED = 0, 1

ARGUMENTS = "wsi_unet.arguments"
"""Key in `click.Context.meta`: the command line as typed, after the program's name."""

INTERRUPTED = "interrupted; what is done is kept. To resume:"
INCOMPLETE = "some blocks failed; the rest is kept. To try just those again:"
LOST = "what is done is kept. To resume:"
UNFINISHED = "some slides aren't finished; the rest is kept. To try just those again:"


@dataclass(frozen=True)
class CommandOutcome:
    """How a command ended.

    Attributes:
        exit_code: exit code of the process.
        reason: the line above the command that resumes it; None prints neither.
        started: whether anything was computed, which the next run must not throw away.
    """

    exit_code: int
    reason: str | None = None
    started: bool = False


def show_resume_command(outcome: CommandOutcome, arguments: Sequence[str]) -> None:
    """Print the command that continues what was interrupted or failed in part.

    Args:
        outcome: how the command ended.
        arguments: its arguments as typed, after the program's name.
    """
    if outcome.reason is None:
        return
    again = [word for word in arguments if not (outcome.started and word == "--overwrite")]
    say(outcome.reason, err=True)
    say(f"  {' '.join(map(shell_word, ['wsi-unet', *again]))}", err=True)
