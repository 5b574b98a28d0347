"""Where the coordinates of a slide begin that QuPath shows in part: from where scanning began."""

from __future__ import annotations

import json

from pydantic import ValidationError

from wsi_unet.labels.documents import Count, StoredDocument
from wsi_unet.labels.progress import Progress
from wsi_unet.storage.store import ByteStore

Origin = tuple[int, int]
"""(y, x) px of the slide."""


class _Slide(StoredDocument):
    origin: tuple[Count, Count] | None = None


class _Parameters(StoredDocument):
    slide: _Slide = _Slide()


def read_origin(store: ByteStore, run: str) -> Origin:
    """Return the origin that a run says its slide has; that of the slide if it says none.

    Raises:
        OutputError: it can't be read.
    """
    record = Progress(store, run).read_run()
    try:
        parameters = _Parameters.model_validate_json(
            json.dumps({} if record is None else record.parameters)
        )
    except ValidationError:
        return 0, 0
    return parameters.slide.origin or (0, 0)
