"""What a caller says about files with corrected objects."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from wsi_unet.annotations.class_names import fold_name
from wsi_unet.corrections.records import Completeness
from wsi_unet.errors import OptionError
from wsi_unet.objects.scan_origin import Origin


@dataclass(frozen=True)
class ImportOptions:
    """What files with corrected objects are to mean.

    Attributes:
        complete: whether objects that aren't in the files were deleted.
        complete_within: regions in which they were; None: none.
        new_classes: whether names of classes that the model doesn't have are kept.
        ignore: names of classes whose outlines aren't objects.
        origin: (y, x) px of the slide from which coordinates count; None: as result and files say.
    """

    complete: bool
    complete_within: Path | None
    new_classes: bool
    ignore: tuple[str, ...]
    origin: Origin | None

    @classmethod
    def parse(
        cls,
        complete: bool,
        complete_within: str | os.PathLike[str] | None,
        new_classes: bool,
        ignore: Iterable[str],
        origin: tuple[int, int] | None,
    ) -> ImportOptions:
        """Return the options; `origin` is (x, y).

        Raises:
            OptionError: they contradict each other.
        """
        if complete and complete_within is not None:
            raise OptionError(
                "choose one of `complete` and `complete_within`: the files hold all objects, or "
                "all in some regions",
                option="complete_within",
            )
        names = (ignore,) if isinstance(ignore, str) else tuple(ignore)
        within = None if complete_within is None else Path(complete_within).expanduser()
        folded = tuple(sorted({*map(fold_name, names)}))
        start = None if origin is None else (origin[1], origin[0])
        return cls(complete, within, new_classes, folded, start)

    @property
    def completeness(self) -> Completeness:
        """Which absent objects were deleted."""
        if self.complete_within is not None:
            return "regions"
        return "whole" if self.complete else "partial"
