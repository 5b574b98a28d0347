"""What a result says about how its labels were made, as far as objects need it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from wsi_unet.labels.documents import DamagedError, Side, StoredDocument, Text, explain_invalid
from wsi_unet.labels.progress import RunRecord
from wsi_unet.objects.intensities.slide_pixels import Sampling, SlideReference
from wsi_unet.objects.rule import ObjectRule
from wsi_unet.storage.store import ByteStore

CREATOR = "wsi-unet"
"""What documents of ours name as their writer."""


class _Spec(StoredDocument):
    objects: ObjectRule | None = None


class _Model(StoredDocument):
    name: Text = ""
    sha256: Text = ""
    spec: _Spec = _Spec()
    mean_of: tuple[_Model, ...] = ()


class _Slide(StoredDocument):
    name: Text = ""
    fingerprint: Text = ""
    shape: tuple[Side, Side] | None = None


class Provenance(StoredDocument):
    """What a label group says about how it was made."""

    slide: _Slide = _Slide()
    model: _Model = _Model()
    exactness: Text = ""
    finished: Text | None = None

    @property
    def rule(self) -> ObjectRule:
        """The object rule of the model's card; of an ensemble, of its first model's."""
        model = self.model.mean_of[0] if self.model.mean_of else self.model
        return model.spec.objects or ObjectRule({})


class Parameters(StoredDocument):
    """What the run that made labels was started with."""

    slide: SlideReference | None = None
    sampling: Sampling = Sampling()


def parse_documents(
    store: ByteStore, label: str, attributes: Mapping[str, Any], record: RunRecord
) -> tuple[Provenance, Parameters]:
    """Return what a label group says, and what its run was started with.

    Args:
        store: the output, for messages.
        label: name of the group.
        attributes: the group's.
        record: the run's.

    Raises:
        DamagedError: one of the two isn't as a run writes it.
    """
    ours = {key: value for key, value in attributes["wsi_unet"].items() if key != "model"}
    model = attributes["wsi_unet"].get("model")
    try:
        provenance = Provenance.model_validate_json(
            json.dumps(ours | ({"model": model} if isinstance(model, dict) else {}))
        )
        return provenance, Parameters.model_validate_json(json.dumps(record.parameters))
    except ValidationError as error:
        raise DamagedError(
            f"{store}: what 'labels/{label}' says about its making is damaged "
            f"({explain_invalid(error)}); segment again with `overwrite=True`"
        ) from error
