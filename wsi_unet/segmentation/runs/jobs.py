"""A slide to be segmented, and its outcome."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from wsi_unet.errors import OptionError, SlideError
from wsi_unet.locations import Location, is_utf8
from wsi_unet.segmentation.planning.options import Options
from wsi_unet.segmentation.report import Report


@dataclass(frozen=True, kw_only=True)
class SlideJob:
    """One slide to be segmented, as its caller describes it.

    Attributes:
        slide: path or URL of a slide that `open_slide` opens.
        output: path or URL of the OME-Zarr to write; None is `<stem>.ome.zarr` in the current
            folder.
        model: a bundled model's name, or the path of a model.
        other_models: more models, whose probabilities are averaged with the model's.
        options: what the caller wants.
        overwrite: replace what is stored under the model's name, whether it differs or not.
    """

    slide: str
    output: str | None = None
    model: str = "nuclei-he"
    other_models: tuple[str, ...] = ()
    options: Options = field(default_factory=Options)
    overwrite: bool = False


@dataclass(frozen=True)
class SlideOutcome:
    """The outcome of one slide.

    Attributes:
        job: the slide.
        report: what was done; None if the slide failed before its first block.
        error: what went wrong with the slide as a whole; failed blocks are in the report.
    """

    job: SlideJob
    report: Report | None
    error: Exception | None = None

    @property
    def state(self) -> str:
        """The report's state; "failed" without a report."""
        return "failed" if self.report is None else self.report.state


def name_output(slide: str | os.PathLike[str] | Location) -> str:
    """Return the name that a slide's result gets where none is given: `<stem>.ome.zarr`.

    >>> name_output("slides/a.ome.tif"), name_output("s3://bucket/b.svs")
    ('a.ome.zarr', 'b.ome.zarr')
    """
    name = PurePosixPath(str(slide).rstrip("/")).name
    return f"{PurePosixPath(name).stem.removesuffix('.ome') or name}.ome.zarr"


def locate(job: SlideJob) -> tuple[Location, Location]:
    """Return where a job's slide is, and where its result goes.

    Raises:
        OptionError: one isn't a path or a URL of a known kind, or writing the result could destroy
            the slide.
        SlideError: the slide's path isn't UTF-8.
    """
    output = Location.parse(name_output(job.slide) if job.output is None else job.output)
    slide = Location.parse(job.slide)
    if not is_utf8(str(slide)):
        raise SlideError(f"{slide}: the path isn't valid UTF-8, so it can't be recorded; rename it")
    if not is_utf8(str(output)):
        raise OptionError(f"{output}: the path isn't valid UTF-8; choose another", option="output")
    if output.is_url != slide.is_url:
        return slide, output
    inner, outer = (
        PurePosixPath(str(location)) if location.is_url else location.path.resolve()
        for location in (slide, output)
    )
    if inner == outer or inner in outer.parents or outer in inner.parents:
        raise OptionError(
            f"the output {output} is the slide itself, or one lies inside the other; choose "
            "another `output`",
            option="output",
        )
    return slide, output
