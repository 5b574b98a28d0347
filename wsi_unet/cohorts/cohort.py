"""The slides of a cohort: from what a person lists (slides, folders, patterns, manifests) to jobs.

Invalid arguments are refused before anything starts. A slide that is missing isn't refused, nor is
a manifest's row that can't be carried out: it is one slide that fails, with the manifest's line
number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from wsi_unet.cohorts.manifest import (
    COLUMNS,
    SUFFIX,
    is_absolute,
    manifest_folder,
    read_manifest,
    resolve_path,
)
from wsi_unet.cohorts.places import is_inside, is_same_file, join_place, normalise_location
from wsi_unet.cohorts.search import find_slides
from wsi_unet.errors import InputError, first_line
from wsi_unet.locations import Location
from wsi_unet.models.importing.imported_models import check_model_exists
from wsi_unet.models.model import bundled_models
from wsi_unet.segmentation.planning.options import Options
from wsi_unet.segmentation.runs.jobs import SlideJob, name_output
from wsi_unet.storage.opening import open_store


@dataclass(frozen=True, slots=True)
class CohortSlide:
    """A slide of a cohort, with what else its manifest says about it.

    Attributes:
        job: the slide and its options; the output is set.
        names: the manifest's columns that have no meaning here; one tuple for all its rows.
        values: the row's cells in these columns.
        error: why the row can't be carried out; the job then holds nothing but the slide.
        given: the cells of `COLUMNS` in such a row.
    """

    job: SlideJob
    names: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    error: InputError | None = None
    given: tuple[str, ...] = ()

    @property
    def columns(self) -> dict[str, str]:
        """The cells that are carried into the report, by column."""
        return dict(zip(self.names, self.values, strict=True))


@dataclass(frozen=True)
class Cohort:
    """The slides that are to be segmented together.

    Attributes:
        slides: every slide once, in the order given; those of a folder or pattern sorted.
        folder: path or URL of the folder that the outputs and the cohort's report go into; None for
            a single slide, which has no report.
        skipped: folders that couldn't be searched, one line each.
    """

    slides: tuple[CohortSlide, ...]
    folder: str | None
    skipped: tuple[str, ...] = ()

    @property
    def jobs(self) -> list[SlideJob]:
        """The slides that can be worked on."""
        return [slide.job for slide in self.slides if slide.error is None]


def read_cohort(
    arguments: Sequence[str],
    output: str | None,
    model: str = "nuclei-he",
    options: Options | None = None,
    *,
    other_models: Sequence[str] = (),
    overwrite: bool = False,
    outside: bool = False,
) -> Cohort:
    """Return the slides that are to be segmented, and where each result goes.

    Args:
        arguments: slides, folders (searched with all folders below), patterns, URLs and CSV
            manifests.
        output: the result itself if the only argument is a slide, unless it ends in a slash;
            otherwise the folder (or URL) that gets one `<stem>.ome.zarr` per slide. None is the
            current folder.
        model: the model of slides whose manifest names none.
        options: the options of every slide; a manifest's `mpp`, `tissue` and `series` come
            first.
        other_models: more models, whose probabilities are averaged with those of `model`; not for
            slides whose manifest names a model.
        overwrite: whether stored results are replaced.
        outside: whether a manifest's column `output` may name places outside of `output`, or where
            that is None, of the manifest's folder and the current one.

    Raises:
        InputError: an argument stands for no slide, a manifest can't be read, or two slides that
            aren't a manifest's would be written to one output.
        ModelError: the model of several slides isn't there.
        OutputError: an object store can't be listed.
    """
    models = [_locate_model(name) for name in (model, *other_models)]
    defaults = SlideJob(
        slide="",
        model=models[0],
        other_models=tuple(models[1:]),
        options=options or Options(),
        overwrite=overwrite,
    )
    listing = _Listing(output, defaults, outside=outside)
    for argument in arguments:
        listing.add(argument)
    listing.fail_nested()
    slides = listing.rows
    if len(arguments) == 1 and not listing.searched:
        is_result = output is not None and not output.endswith("/")
        (single,) = slides
        job = replace(single.job, model=model, other_models=tuple(other_models))
        return Cohort((CohortSlide(replace(job, output=output) if is_result else job),), None)
    if any(slide.job.model == models[0] for slide in slides if slide.error is None):
        for name in models:  # one line now, rather than one per slide
            check_model_exists(name)
    folder = Location.parse(output or ".")
    if open_store(folder).get("zarr.json") is not None:
        raise InputError(
            f"{folder}: is a Zarr; with several slides, `output` is the folder for their results"
        )
    return Cohort(tuple(slides), str(folder), tuple(listing.skipped))


def _locate_model(model: str) -> str:
    """Return a bundled model's name, or the location of a model's path."""
    return model if model in bundled_models() else str(Location.parse(model))


class _Listing:
    """The slides listed so far.

    Attributes:
        rows: every slide once, in the order listed.
        skipped: folders that couldn't be searched, one line each.
        searched: whether slides were searched for, or listed in a manifest.
    """

    def __init__(self, output: str | None, defaults: SlideJob, *, outside: bool) -> None:
        self.rows: list[CohortSlide] = []
        self.skipped: list[str] = []
        self.searched = False
        self._outside = outside
        self._places: dict[Location, tuple[int, str]] = {}  # index in rows, manifest's line
        self._output = output
        self._defaults = defaults
        self._options: dict[tuple[float | None, str, str | None], Options] = {}
        self._models: dict[tuple[str, str], str] = {}

    def add(self, argument: str) -> None:
        """Add the slides that an argument stands for."""
        if argument.lower().endswith(SUFFIX):
            self.searched = True
            self._add_manifest(argument)
            return
        result = find_slides(argument)
        self.searched |= result.searched
        self.skipped += result.skipped
        for slide in result.slides:
            if slide.lower().endswith(SUFFIX):  # a pattern that stands for manifests
                self._add_manifest(slide)
            else:
                job = replace(self._defaults, slide=slide, output=self._place_output(slide))
                self._add_slide(CohortSlide(job))

    def _add_manifest(self, manifest: str) -> None:
        names: tuple[str, ...] = ()
        empty = True
        for line, cells in read_manifest(manifest):
            empty = False
            where = f"{manifest}, line {line}"
            if isinstance(cells, InputError):
                self._add_failed(manifest, where, {}, names, cells)
                continue
            names = names or tuple(name for name in cells if name not in COLUMNS)
            try:
                job = self._make_job(manifest, cells)
                slide = CohortSlide(job, names, tuple(cells[name] for name in names))
                self._add_slide(slide, where)
            except Exception as error:  # whatever is wrong with one row, the others are segmented
                self._add_failed(manifest, where, cells, names, error)
        if empty:
            raise InputError(f"{manifest}: lists no slides")

    def _add_failed(
        self,
        manifest: str,
        where: str,
        cells: dict[str, str],
        names: tuple[str, ...],
        error: Exception,
    ) -> None:
        """Add a row that can't be carried out."""
        refusal = InputError(f"{where}: {first_line(error)}")
        refusal.__cause__ = error
        given = [cells.get(name, "").strip() for name in COLUMNS]
        with suppress(InputError):  # it is no path; as given, then
            given[0] = str(Location.parse(resolve_path(manifest, given[0]))) if given[0] else where
        values = tuple(cells.get(name, "") for name in names)
        job = SlideJob(slide=given[0])
        self.rows.append(CohortSlide(job, names, values, refusal, tuple(given)))

    def _make_job(self, manifest: str, cells: dict[str, str]) -> SlideJob:
        cells = {name: cells.get(name, "").strip() for name in COLUMNS}
        slide, output, model, mpp, tissue, series = cells.values()
        if not slide:
            raise InputError("the column 'slide' is empty")
        slide = resolve_path(manifest, slide)
        return replace(
            self._defaults,
            slide=slide,
            output=self._place_named_output(manifest, output)
            if output
            else self._place_output(slide),
            model=self._check_model(manifest, model) if model else self._defaults.model,
            other_models=() if model else self._defaults.other_models,
            options=self._change_options(
                _parse_mpp(mpp) if mpp else self._defaults.options.mpp,
                (tissue if tissue in ("auto", "none") else resolve_path(manifest, tissue))
                if tissue
                else self._defaults.options.tissue,
                series or self._defaults.options.series,
            ),
        )

    def _place_output(self, slide: str) -> str:
        """Return where a slide's result goes unless its manifest names it."""
        name = name_output(slide)
        return name if self._output is None else join_place(self._output, name)

    def _place_named_output(self, manifest: str, output: str) -> str:
        """Return the result that a manifest names: below the output folder, if there is one.

        Raises:
            InputError: it would lie elsewhere, which nobody has allowed.
        """
        if self._output is None or is_absolute(output):
            place = resolve_path(manifest, output)
        else:
            place = join_place(self._output, output)
        folders = [manifest_folder(manifest), "."] if self._output is None else [self._output]
        if self._outside or any(is_inside(place, folder) for folder in folders):
            return place
        where = "the manifest's folder and the current one" if self._output is None else folders[0]
        raise InputError(
            f"the output {output} lies outside of {where}; name one inside, or `outside=True` "
            "allows it for all rows"
        )

    def _check_model(self, manifest: str, model: str) -> str:
        """Return a model's name or path, once it is known to exist; each is checked once."""
        known = self._models.get((manifest, model))
        if known is None:
            is_bundled = model in bundled_models()
            known = _locate_model(model if is_bundled else resolve_path(manifest, model))
            check_model_exists(known)
            self._models[manifest, model] = known
        return known

    def _change_options(self, mpp: float | None, tissue: str, series: str | None) -> Options:
        """Return the options with these changes; equal options are one object, to save memory."""
        return self._options.setdefault(
            (mpp, tissue, series),
            replace(self._defaults.options, mpp=mpp, tissue=tissue, series=series),
        )

    def _add_slide(self, slide: CohortSlide, where: str = "") -> None:
        output = slide.job.output or ""
        location = normalise_location(Location.parse(output))
        for path in (slide.job.slide, slide.job.options.tissue):  # refused now, not when opened
            Location.parse(path)
        if location not in self._places:
            self._places[location] = len(self.rows), where
            self.rows.append(slide)
            return
        number, other_where = self._places[location]
        other = self.rows[number]
        if not where and not other_where and is_same_file(other.job.slide, slide.job.slide):
            return
        raise InputError(
            f"{_describe(other, other_where)} and {_describe(slide, where)} would both be written "
            f"to {output}; give each an output of its own, in a manifest's column 'output'"
        )

    def fail_nested(self) -> None:
        """Fail the rows of manifests whose outputs lie inside others: files would get mixed up.

        Raises:
            InputError: such outputs aren't a manifest's.
        """
        for output, (number, where) in self._places.items():
            above = output.parent
            while above != above.parent and above not in self._places:
                above = above.parent
            if above not in self._places or above == output:
                continue
            refusal = InputError(
                f"{where + ': ' if where else ''}{output} would be written inside another result, "
                f"{above}; give one of them another output"
            )
            if not where:
                raise refusal
            job = self.rows[number].job
            mpp = "" if job.options.mpp is None else str(job.options.mpp)
            slide = str(Location.parse(job.slide))
            series = job.options.series or ""
            given = (slide, str(output), job.model, mpp, job.options.tissue, series)
            self.rows[number] = replace(self.rows[number], error=refusal, given=given)


def _parse_mpp(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"mpp {text[:40]!r} isn't a number above 0, in µm per pixel")
    return value


def _describe(slide: CohortSlide, where: str) -> str:
    return f"{slide.job.slide} ({where})" if where else slide.job.slide
