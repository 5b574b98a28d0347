"""What classes are called in DICOM: codes, colours, and what found them."""

from __future__ import annotations

from highdicom import AlgorithmIdentificationSequence
from highdicom.color import CIELabColor
from pydicom.sr.coding import Code

from wsi_unet._version import __version__
from wsi_unet.colour import Colour
from wsi_unet.exports.dicom.text import cut_text
from wsi_unet.exports.results import ExportedGroup

STRUCTURE = Code("91723000", "SCT", "Anatomical Structure")
ABNORMAL = Code("49755003", "SCT", "Morphologically Abnormal Structure")
TISSUE = Code("85756007", "SCT", "Tissue")

_NUCLEUS = Code("84640000", "SCT", "Nucleus")
_CELL = Code("4421005", "SCT", "Cell")
_NEOPLASM = Code("108369006", "SCT", "Neoplasm")
_NECROSIS = Code("6574001", "SCT", "Necrosis")
_CONNECTIVE = Code("21793004", "SCT", "Connective tissue")
_FAT = Code("55603005", "SCT", "Fat")
_MUSCLE = Code("71616004", "SCT", "Muscle")
_VESSEL = Code("59820001", "SCT", "Blood Vessel")
_INFLAMMATION = Code("409774005", "SCT", "Inflammation")

KNOWN: dict[str, tuple[Code, Code]] = {
    "nucleus": (STRUCTURE, _NUCLEUS),
    "nuclei": (STRUCTURE, _NUCLEUS),
    "cell": (STRUCTURE, _CELL),
    "cells": (STRUCTURE, _CELL),
    "tumour": (ABNORMAL, _NEOPLASM),
    "tumor": (ABNORMAL, _NEOPLASM),
    "neoplasm": (ABNORMAL, _NEOPLASM),
    "necrosis": (ABNORMAL, _NECROSIS),
    "inflammation": (ABNORMAL, _INFLAMMATION),
    "stroma": (TISSUE, _CONNECTIVE),
    "connective tissue": (TISSUE, _CONNECTIVE),
    "fat": (TISSUE, _FAT),
    "adipose": (TISSUE, _FAT),
    "muscle": (TISSUE, _MUSCLE),
    "vessel": (STRUCTURE, _VESSEL),
    "blood vessel": (STRUCTURE, _VESSEL),
}
"""Category and type (SNOMED CT, CID 7150, 7166 and 8135) of classes by name, in lower case."""

ARTIFICIAL_INTELLIGENCE = Code("123110", "DCM", "Artificial Intelligence")
"""The kind of algorithm, of CID 7162."""


def find_codes(name: str) -> tuple[Code, Code]:
    """Return category and type of a class; of one that isn't known, tissue."""
    return KNOWN.get(name.strip().lower().replace("_", " "), (TISSUE, TISSUE))


def to_cielab(colour: Colour) -> CIELabColor:
    """Return the display colour of a class."""
    return CIELabColor.from_rgb(*colour)


def identify_algorithm(group: ExportedGroup) -> AlgorithmIdentificationSequence:
    """Return what made the labels of a group: model, hash, signature."""
    model = group.source.provenance.model
    return AlgorithmIdentificationSequence(
        name=cut_text(model.name) or "unknown",
        family=ARTIFICIAL_INTELLIGENCE,
        version=cut_text(model.sha256) or "unknown",
        source=f"wsi-unet {__version__}",
        parameters={
            "model_sha256": model.sha256,
            "signature": group.source.signature,
            "exactness": group.source.provenance.exactness,
        },
    )
