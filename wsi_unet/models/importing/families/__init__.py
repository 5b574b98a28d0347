"""The families of U-Net checkpoints that can be imported, and how they are recognised."""

from wsi_unet.models.importing.families.family import Family, RecognisedCheckpoint
from wsi_unet.models.importing.families.known import FAMILIES
from wsi_unet.models.importing.families.layout import NeededHint, ShapeHints
from wsi_unet.models.importing.families.recognising import recognise_family

__all__ = [
    "FAMILIES",
    "Family",
    "NeededHint",
    "RecognisedCheckpoint",
    "ShapeHints",
    "recognise_family",
]
