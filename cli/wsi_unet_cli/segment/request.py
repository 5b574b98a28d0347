"""What a command about slides was asked to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wsi_unet_cli.common.interrupt import Interruption

if TYPE_CHECKING:
    from wsi_unet import ClusterOptions
    from wsi_unet.cohorts.cohort import Cohort


@dataclass(frozen=True)
class Request:
    """What is to be done, and how to show it.

    Attributes:
        cohort: the slides.
        cluster: where blocks are computed.
        quiet: no progress.
        as_json: one JSON document on stdout instead of text.
        verbose: say more; show tracebacks.
        interruption: whether somebody wants it to end.
    """

    cohort: Cohort
    cluster: ClusterOptions
    quiet: bool
    as_json: bool
    verbose: bool
    interruption: Interruption
