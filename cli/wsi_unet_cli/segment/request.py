"""The request that `wsi-unet segment` got: slides, cluster, and how to show them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wsi_unet_cli.common.interrupt import Check

if TYPE_CHECKING:
    from wsi_unet import ClusterOptions
    from wsi_unet.cohorts.cohort import Cohort


@dataclass(frozen=True)
class Request:
    """What to do, and how to show it.

    Attributes:
        cohort: the slides.
        cluster: where blocks are computed.
        quiet: show no progress.
        as_json: print one JSON document on stdout instead of text.
        verbose: say more, and show tracebacks.
        check_interrupted: raises KeyboardInterrupt if the program is to end.
    """

    cohort: Cohort
    cluster: ClusterOptions
    quiet: bool
    as_json: bool
    verbose: bool
    check_interrupted: Check
