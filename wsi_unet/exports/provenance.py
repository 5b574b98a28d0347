"""What every export says about where it comes from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from wsi_unet._version import __version__
from wsi_unet.objects.provenance import CREATOR
from wsi_unet.objects.records import StageRecord
from wsi_unet.objects.source import LabelSource

KEY = "wsi_unet"
"""The name under which formats with names for such things keep provenance."""

DISCLAIMER = "For research, not for diagnosis."


def describe_group(source: LabelSource, record: StageRecord | None) -> dict[str, Any]:
    """Return what a label group was made of and by, as JSON-able values.

    Args:
        source: its labels.
        record: what its objects were found by; None if the export has none.
    """
    said = source.describe() | {
        "signature": source.signature,
        "labels_finished": source.finished,
    }
    if record is not None:
        said |= {
            "rules": {name: rule.model_dump() for name, rule in record.rules.items()},
            "objects_signature": record.signature,
        }
    return said


def describe_export(groups: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what an export says about itself, as JSON-able values.

    The same result gives the same, whenever and wherever it is exported.

    Args:
        groups: what `describe_group` says of each label group that it holds.
    """
    return {
        "creator": CREATOR,
        "version": __version__,
        "for": DISCLAIMER,
        "groups": list(groups),
    }


def encode(provenance: Mapping[str, Any]) -> str:
    """Return provenance as the JSON text that files hold."""
    return json.dumps(provenance, sort_keys=True, ensure_ascii=False)


def is_ours(text: str | bytes) -> bool:
    """Return whether a text is provenance that `encode` wrote."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return is_provenance(document)


def is_provenance(document: object) -> bool:
    """Return whether a JSON value is provenance that `describe_export` returned."""
    return isinstance(document, dict) and document.get("creator") == CREATOR
