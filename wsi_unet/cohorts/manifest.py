"""From what a person lists (slides, folders, patterns, CSV manifests) to the jobs of a cohort.

A manifest is a CSV file with one slide per row:

    slide,output,model,mpp,tissue,patient
    a.svs,,,,,P-17
    old/b.tif,b-anew.ome.zarr,my-model/,0.25,b.geojson,P-18

Only the column `slide` is needed; a cell left empty means what the command says. Paths are relative
to the manifest's folder. Columns of other names are carried into the cohort's report. Whatever
can't be right is refused before anything starts, with the line's number; a slide that isn't there
is not: it is one slide that fails.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from wsi_unet import locations
from wsi_unet.cohorts.inputs import find_slides
from wsi_unet.cohorts.table import read_rows
from wsi_unet.errors import InputError, ModelError, OptionError
from wsi_unet.models.importing.imported_models import check_model_exists
from wsi_unet.models.model import bundled_models
from wsi_unet.segmentation.dispatch.jobs import SlideJob, name_output
from wsi_unet.segmentation.planning.options import Options
from wsi_unet.storage.opening import open_store

COLUMNS = ("slide", "output", "model", "mpp", "tissue")
"""The columns of a manifest that mean something here."""

SUFFIX = ".csv"


@dataclass(frozen=True, slots=True)
class Listed:
    """A slide of a cohort, and what its manifest says about it beside that.

    Attributes:
        job: what is to be done; its output is set.
        names: the manifest's columns that mean nothing here; one tuple for all its rows.
        values: the row's cells in them.
    """

    job: SlideJob
    names: tuple[str, ...] = ()
    values: tuple[str, ...] = ()

    @property
    def columns(self) -> dict[str, str]:
        """The carried cells by column."""
        return dict(zip(self.names, self.values, strict=True))


@dataclass(frozen=True)
class Cohort:
    """What a command is about.

    Attributes:
        slides: every slide once, in the order given; those of a folder or pattern sorted.
        folder: where the outputs and the cohort's report go; None for a single slide, which has no
            report.
        skipped: folders that couldn't be searched, one line each.
    """

    slides: tuple[Listed, ...]
    folder: str | None
    skipped: tuple[str, ...] = ()


def read_cohort(
    arguments: Sequence[str],
    output: str | None,
    model: str = "nuclei-he",
    options: Options | None = None,
    *,
    other_models: Sequence[str] = (),
    overwrite: bool = False,
) -> Cohort:
    """Return the slides that are to be segmented, and where each result goes.

    Args:
        arguments: slides, folders (searched with all folders below), patterns, URLs and CSV
            manifests.
        output: the result itself if the only argument is a slide, unless it ends in a slash;
            otherwise the folder (or URL) that gets one `<stem>.ome.zarr` per slide. None is the
            current folder.
        model: for slides whose manifest names none.
        options: likewise; a manifest's `mpp` and `tissue` replace those in here.
        other_models: more models, to be averaged with `model`; not for slides whose manifest names one.
        overwrite: of every job.

    Raises:
        InputError: an argument stands for no slide, a manifest can't be right, or two slides would
            be written to one place.
        ModelError: the model of several slides isn't there.
        OutputError: an object store can't be listed.
    """
    found, *found_others = (
        name if name in bundled_models() else locations.resolve(name)
        for name in (model, *other_models)
    )
    defaults = SlideJob(
        slide="",
        model=found,
        other_models=tuple(found_others),
        options=options or Options(),
        overwrite=overwrite,
    )
    reading = _Reading(output, defaults)
    for argument in arguments:
        reading.take(argument)
    slides = [listed for listed, _ in reading.listed.values()]
    if len(arguments) == 1 and not reading.searched:
        whole = output is not None and not output.endswith("/")
        (single,) = slides
        job = replace(single.job, model=model, other_models=tuple(other_models))
        return Cohort((Listed(replace(job, output=output) if whole else job),), None)
    _refuse_nested(reading.listed)
    if any(listed.job.model == found for listed in slides):
        for name in (found, *found_others):  # one line now, rather than one per slide
            check_model_exists(name)
    folder = locations.resolve(output or ".")
    if open_store(folder).get("zarr.json") is not None:
        raise InputError(
            f"{folder}: is a Zarr; with several slides --output is the folder for their results"
        )
    return Cohort(tuple(slides), folder, tuple(reading.skipped))


class _Reading:
    """The slides listed so far, by where they would be written."""

    def __init__(self, output: str | None, defaults: SlideJob) -> None:
        self.listed: dict[str, tuple[Listed, str]] = {}
        self.skipped: list[str] = []
        self.searched = False
        self._output = output
        self._defaults = defaults
        self._options: dict[tuple[float | None, str], Options] = {}
        self._models: dict[tuple[str, str], str] = {}

    def take(self, argument: str) -> None:
        """Add the slides that an argument stands for."""
        if argument.lower().endswith(SUFFIX):
            self.searched = True
            self._take_manifest(argument)
            return
        found = find_slides(argument)
        self.searched |= found.searched
        self.skipped += found.skipped
        for slide in found.slides:
            if slide.lower().endswith(SUFFIX):  # a pattern that stands for manifests
                self._take_manifest(slide)
            else:
                self._add(Listed(replace(self._defaults, slide=slide, output=self._place(slide))))

    def _take_manifest(self, manifest: str) -> None:
        names: tuple[str, ...] = ()
        empty = True
        for line, cells in read_rows(manifest):
            empty = False
            where = f"{manifest}, line {line}"
            names = names or tuple(name for name in cells if name not in COLUMNS)
            job = self._job(manifest, where, cells)
            self._add(Listed(job, names, tuple(cells[name] for name in names)), where)
        if empty:
            raise InputError(f"{manifest}: lists no slides")

    def _job(self, manifest: str, where: str, cells: dict[str, str]) -> SlideJob:
        slide, output, model, mpp, tissue = (cells.get(name, "").strip() for name in COLUMNS)
        if not slide:
            raise InputError(f"{where}: the column 'slide' is empty")
        slide = _beside(manifest, slide)
        return replace(
            self._defaults,
            slide=slide,
            output=self._named(manifest, output) if output else self._place(slide),
            model=self._model(manifest, where, model) if model else self._defaults.model,
            other_models=() if model else self._defaults.other_models,
            options=self._changed(
                _pixel_size(where, mpp) if mpp else self._defaults.options.mpp,
                (tissue if tissue in ("auto", "none") else _beside(manifest, tissue))
                if tissue
                else self._defaults.options.tissue,
            ),
        )

    def _place(self, slide: str) -> str:
        """Return where a slide's result goes when nothing else is said."""
        name = name_output(slide)
        return name if self._output is None else _below(self._output, name)

    def _named(self, manifest: str, output: str) -> str:
        """Return the result that a manifest names: below the output folder, if there is one."""
        if self._output is None or _is_absolute(output):
            return _beside(manifest, output)
        return _below(self._output, output)

    def _model(self, manifest: str, where: str, model: str) -> str:
        """Return a model's name or path, after a look at it; each is looked at once."""
        known = self._models.get((manifest, model))
        if known is None:
            beside = _beside(manifest, model)
            known = model if model in bundled_models() else locations.resolve(beside)
            try:
                check_model_exists(known)
            except ModelError as error:
                raise InputError(f"{where}: {error}") from error
            self._models[manifest, model] = known
        return known

    def _changed(self, mpp: float | None, tissue: str) -> Options:
        """Return the options with these changes; equal ones are one object, for memory's sake."""
        return self._options.setdefault(
            (mpp, tissue), replace(self._defaults.options, mpp=mpp, tissue=tissue)
        )

    def _add(self, listed: Listed, where: str = "") -> None:
        output = listed.job.output or ""
        try:
            key = _key(output)
            for place in (listed.job.slide, listed.job.options.tissue):
                locations.resolve(place)
        except OptionError as error:
            raise InputError(f"{where}: {error}" if where else str(error)) from error
        other, other_where = self.listed.setdefault(key, (listed, where))
        if other is listed or (not where and not other_where and _same_file(other, listed)):
            return
        raise InputError(
            f"{_called(other, other_where)} and {_called(listed, where)} would both be written to "
            f"{output}; give each an output of its own, in a manifest's column 'output'"
        )


def _pixel_size(where: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"{where}: mpp {text!r} isn't a number above 0, in µm per pixel")
    return value


def _is_absolute(place: str) -> bool:
    return locations.is_url(place) or place.startswith(("/", "~"))


def _beside(manifest: str, place: str) -> str:
    """Return a path as it is meant in a manifest: relative to its folder."""
    if _is_absolute(place):
        return place
    if locations.is_url(manifest):
        return locations.join(locations.parent(locations.resolve(manifest)), place)
    return os.path.join(os.path.dirname(manifest), place)  # noqa: PTH118, PTH120 (as typed)


def _below(folder: str, place: str) -> str:
    return f"{folder.rstrip('/')}/{place}"  # plain text: may be a URL


def _key(output: str) -> str:
    """Return what two spellings of an output have in common."""
    place = locations.resolve(output)
    return place if locations.is_url(place) else os.path.normpath(place)


def _same_file(one: Listed, other: Listed) -> bool:
    """Whether two arguments name one file, so that it is to be segmented once."""
    first, second = (locations.resolve(listed.job.slide) for listed in (one, other))
    if locations.is_url(first) or locations.is_url(second):
        return first == second
    return os.path.realpath(first) == os.path.realpath(second)


def _called(listed: Listed, where: str) -> str:
    return f"{listed.job.slide} ({where})" if where else listed.job.slide


def _refuse_nested(listed: Iterable[str]) -> None:
    """Refuse outputs that lie inside others: their files would get mixed up."""
    outputs = set(listed)
    for output in outputs:
        above = locations.parent(output)
        while above != locations.parent(above):
            if above in outputs:
                raise InputError(
                    f"{output} would be written inside another result, {above}; give one of them "
                    "another output"
                )
            above = locations.parent(above)
