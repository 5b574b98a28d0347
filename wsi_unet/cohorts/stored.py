"""Models that check a cohort's report when it is read back; anybody may have written it."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from wsi_unet.errors import OptionError
from wsi_unet.labels.documents import Count, StoredDocument
from wsi_unet.locations import Location

FORMAT_VERSION = 1

Status = Literal["waiting", "running", "finished", "incomplete", "failed", "interrupted"]

Text = Annotated[str, Field(max_length=1 << 16)]
Number = Annotated[float, Field(ge=0, lt=1e15)]

_SURROGATE = re.compile(rb"(\\\\)|\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
"""Half a character outside of the first plane, or a byte of a file name."""


class _Blocks(StoredDocument, extra="forbid"):
    total: Count
    done: Count
    resumed: Count
    failed: Count
    empty: Count


class _Waits(StoredDocument, extra="forbid"):
    read: Number
    device: Number
    predict: Number
    write: Number


class _Area(StoredDocument):
    name: Text
    value: Count
    area_mm2: Number | None
    pixels: Count
    fraction: Number | None


class _Objects(StoredDocument):
    name: Text
    objects: Count
    density_per_mm2: Number | None
    mean_area: Number | None


class StoredRow(StoredDocument):
    """The row of a slide."""

    slide: Text | None
    output: Text | None
    status: Status
    error: Text | None
    model: Text | None
    mpp: Number | Text | None
    tissue: Text | None
    series: Text | None
    label: Text | None
    exactness: Text | None
    inexact_because: Text | None
    blocks: _Blocks | None
    seconds: Number | None
    startup_seconds: Number | None
    mpx_per_s: Number | None
    blocks_per_s: Number | None
    device_busy: Number | None
    waits: _Waits | None
    classes: tuple[_Area, ...]
    objects: tuple[_Objects, ...] = ()
    warnings: tuple[Text, ...]
    columns: dict[Text, Text]
    refused: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        """Check that a row can be that of a slide."""
        if self.refused:
            return self
        if self.slide is None or self.output is None:
            raise ValueError("a slide without a path")
        if self.status == "finished" and None in (
            *(self.label, self.blocks, self.mpx_per_s, self.waits),
        ):
            raise ValueError("a finished slide without figures")
        try:
            Location.parse(self.slide), Location.parse(self.output)
        except OptionError as error:
            raise ValueError(str(error)) from error
        return self


class _Progress(StoredDocument):
    blocks_done: Count
    mpx_per_s: Number
    blocks_per_s: Number
    device_busy: Number


class StoredHeader(StoredDocument):
    """What the report says about the whole cohort."""

    format_version: Literal[1]
    updated: Text
    progress: _Progress | None


def read_document(model: type[StoredDocument], data: bytes) -> dict[str, Any] | None:
    """Return what a document says, all keys; None if it isn't one of ours.

    File names that aren't UTF-8 stand there as `os.fsdecode` has them, which pydantic refuses.
    """
    try:
        model.model_validate_json(_SURROGATE.sub(lambda found: found[1] or b"?", data))
        document: dict[str, Any] = json.loads(data, parse_constant=_refuse_constant)
    except ValueError:  # pydantic's are, too
        return None
    return document


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} isn't JSON")
