"""The options of an export: what it holds, where its format leaves a choice."""

from __future__ import annotations

from dataclasses import dataclass, fields

from wsi_unet.errors import OptionError
from wsi_unet.exports.formats import FORMATS, ExportFormat

CONTENTS = ("labels", "overlay", "probabilities", "image")
"""What an OME-TIFF may hold of a result."""

OBJECT_KINDS = DETECTION, ANNOTATION = "detection", "annotation"
"""What QuPath may make of objects."""

MOST_OBJECTS = 200_000
"""Most objects per file for QuPath, which parses a whole file before it makes objects of it."""

OF_ONE_SLIDE = ("patient_id", "study_uid", "frame_of_reference_uid")
"""Options that are true of one slide only."""


@dataclass(frozen=True)
class ExportOptions:
    """Options of an export; None leaves the choice to the format.

    Attributes:
        label: name of the label group; None takes all that a result holds, or the only one.
        level: pyramid level of the labels, 0 is the finest.
        class_name: the class to export; None: all of them.
        what: which of `CONTENTS` to export.
        objects_as: "detection" or "annotation", what QuPath makes of all objects; None: detections
            of single objects such as nuclei, annotations of regions.
        most_objects: most objects per file; None: `MOST_OBJECTS`.
        patient_id: DICOM's identifier of the patient; this and the next two are for slides that
            aren't DICOM themselves.
        study_uid: DICOM's UID of the study; None: made of the slide's fingerprint.
        frame_of_reference_uid: DICOM's UID of the slide's coordinates; None: made in the same way.
    """

    label: str | None = None
    level: int | None = None
    class_name: str | None = None
    what: str | None = None
    objects_as: str | None = None
    most_objects: int | None = None
    patient_id: str | None = None
    study_uid: str | None = None
    frame_of_reference_uid: str | None = None

    def __post_init__(self) -> None:
        """Check what can be checked without a result.

        Raises:
            OptionError: an option can't be used.
        """
        if self.objects_as not in (None, *OBJECT_KINDS):
            raise OptionError(
                f"`objects_as` is {self.objects_as!r}; give one of {', '.join(OBJECT_KINDS)}",
                option="objects_as",
            )
        if self.most_objects is not None and self.most_objects < 1:
            raise OptionError(
                f"`most_objects` is {self.most_objects}; give at least 1", option="most_objects"
            )

    def check_many(self) -> None:
        """Refuse options that can't be true of several slides.

        Raises:
            OptionError: one of them is given.
        """
        for name in OF_ONE_SLIDE:
            if getattr(self, name) is not None:
                raise OptionError(
                    f"`{name}` can be true of one slide only; export the results of the folder one "
                    "by one, or leave it out",
                    option=name,
                )

    def check(self, name: str) -> ExportFormat:
        """Return the format of a name, which takes all the options that are given.

        Raises:
            OptionError: there is no such format, or it doesn't take one of them.
        """
        known = FORMATS.get(name)
        if known is None:
            raise OptionError(
                f"`format` is {name!r}; give one of {', '.join(FORMATS)}", option="format"
            )
        for field in fields(self):
            given = getattr(self, field.name) is not None
            if given and field.name not in {"label", *known.options}:
                takers = [each for each, facts in FORMATS.items() if field.name in facts.options]
                raise OptionError(
                    f"`{field.name}` isn't for the format {name}, only for {', '.join(takers)}; "
                    "leave it out",
                    option=field.name,
                )
        return known
