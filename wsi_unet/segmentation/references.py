"""References to a run's slide and model: where a worker finds them, and what identifies them."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from wsi_unet.errors import ModelError
from wsi_unet.labels.documents import Count, Positive, Side
from wsi_unet.locations import is_utf8
from wsi_unet.models.inference.ensemble import Ensemble

MOST_MEMBERS = 64
"""The most models of an ensemble."""


class SlideReference(BaseModel):
    """A slide and how it is opened.

    Attributes:
        path: path or URL at which a worker finds it; not part of any signature.
        name: file name, for messages.
        reader: the reader that opens it.
        series: the image of the file that was asked for; None if it was the largest.
        fingerprint: hash of its content (see `Slide.fingerprint`).
        shape: (rows, columns) of level 0, px.
        mpp: (y, x) size of a level-0 pixel, µm: the caller's if given, or else the file's.
        origin: (y, x) level-0 px at which the area that was scanned begins; None in earlier runs,
            which don't say it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    path: str
    name: str
    reader: str
    fingerprint: str
    shape: tuple[Side, Side]
    mpp: tuple[Positive, Positive] | None
    series: str | None = None
    origin: tuple[Count, Count] | None = None


class ModelReference(BaseModel):
    """A model or an ensemble: where a worker finds it, and the hash that identifies it.

    Attributes:
        path: path of the model; for an ensemble, of its first model.
        name: name of the model or the ensemble.
        sha256: hash of the model or the ensemble.
        members: the models of an ensemble; empty for a single model.
        trust: whether the model may be a program that can run code, as the caller allowed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    name: str
    sha256: str
    members: Annotated[tuple[ModelReference, ...], Field(max_length=MOST_MEMBERS)] = ()
    trust: bool = False

    @classmethod
    def from_ensemble(cls, ensemble: Ensemble) -> ModelReference:
        """Return the reference to an ensemble, or to its only model.

        Raises:
            ModelError: a path isn't UTF-8, so a run couldn't be recorded.
        """
        for model in ensemble.models:
            if not is_utf8(str(model.path.absolute())):
                raise ModelError(f"{model.path}: the path isn't valid UTF-8; rename it")
        members = tuple(
            cls(
                path=str(model.path.absolute()),
                name=model.spec.name,
                sha256=model.sha256,
                trust=model.trusted,
            )
            for model in ensemble.models
        )
        if len(members) == 1:
            return members[0]
        return cls(
            path=members[0].path, name=ensemble.name, sha256=ensemble.sha256, members=members
        )

    @property
    def each(self) -> tuple[ModelReference, ...]:
        """All models: an ensemble's members, or the single model."""
        return self.members or (self,)
