"""One run, start to end: plan, lay out, stream the blocks through Dask, complete.

The verbs that callers use are `plan` and `segment`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

from distributed import Client

from wsi_unet.errors import OptionError
from wsi_unet.models.checkpoint import Model, load_model
from wsi_unet.segment.cluster import count_workers, open_client
from wsi_unet.segment.execution import Execution
from wsi_unet.segment.options import OptionArguments, Options
from wsi_unet.segment.plan import Plan, make_plan
from wsi_unet.segment.probe import Measured, ProbeRequest, measure
from wsi_unet.segment.report import ProgressCallback, Report, RunProgress, ignore_progress
from wsi_unet.segment.store import lay_out
from wsi_unet.segment.target import Target, inspect_target
from wsi_unet.slides.opening import open_slide


def default_output(slide: str | Path) -> Path:
    """Return where the result goes when nothing is said: `<stem>.ome.zarr` right here.

    >>> str(default_output("slides/a.ome.tif"))
    'a.ome.zarr'
    """
    name = Path(slide).name
    stem = name[: -len(Path(name).suffix)] if Path(name).suffix else name
    return Path(f"{stem.removesuffix('.ome')}.ome.zarr")


def plan(
    slide: str | Path,
    output: str | Path | None = None,
    model: str | Path = "nuclei-he",
    *,
    overwrite: bool = False,
    **options: Unpack[OptionArguments],
) -> Plan:
    """Work out what `segment` would do and what it would cost. Nothing is written.

    The arguments are those of `segment`.

    Raises:
        InputError: the slide, the model or an option is unusable.
        OutputError: the output can't be used.
        PlanError: the machine can't afford the run.
    """
    wanted = Options(**options)
    with _prepared(slide, output, model, wanted, overwrite, estimate=True) as prepared:
        return prepared.plan


def segment(
    slide: str | Path,
    output: str | Path | None = None,
    model: str | Path = "nuclei-he",
    *,
    overwrite: bool = False,
    on_progress: ProgressCallback = ignore_progress,
    **options: Unpack[OptionArguments],
) -> Report:
    """Segment a slide into a pyramidal OME-Zarr; doing it again does only what is left.

    The labels are those of one forward pass over the whole slide, however it is cut into tiles
    and whatever happens on the way.

    Args:
        slide: path of a slide that `open_slide` opens.
        output: the OME-Zarr to write; None is `<stem>.ome.zarr` in the current folder.
        model: a bundled model's name, or the path of a model.
        overwrite: replace what is there under the model's name, if it differs or not.
        on_progress: called about once per second and block.
        options: see `Options`.

    Returns:
        What was done; `state` says whether it is finished. KeyboardInterrupt ends the run early
        with state "interrupted".

    Raises:
        InputError: the slide, the model or an option is unusable.
        OutputError: the output can't be used; nothing in it was changed.
        PlanError: the machine can't afford the run; nothing was written.
    """
    started = time.perf_counter()
    wanted = Options(**options)
    on_progress(RunProgress("opening"))
    with _prepared(slide, output, model, wanted, overwrite, estimate=False) as prepared:
        opened = lay_out(prepared.plan, prepared.target, prepared.model)
        execution = Execution(
            prepared.client, prepared.plan, prepared.model.spec, opened, on_progress
        )
        return execution.run(startup_seconds=time.perf_counter() - started)


def _output_path(slide: Path, output: str | Path | None) -> Path:
    """Return where the result goes, absolute.

    Raises:
        OptionError: if writing there could destroy the slide.
    """
    path = Path(default_output(slide) if output is None else output).expanduser().absolute()
    source, place = slide.resolve(), path.resolve()
    if source == place or source in place.parents or place in source.parents:
        raise OptionError(
            f"the output {path} is the slide itself, or one lies inside the other; choose another "
            "place with --output"
        )
    return path


@dataclass(frozen=True)
class _Prepared:
    """Everything that is known before the first byte is written."""

    client: Client
    model: Model
    target: Target
    plan: Plan


@contextmanager
def _prepared(
    slide: str | Path,
    output: str | Path | None,
    model: str | Path,
    options: Options,
    overwrite: bool,
    *,
    estimate: bool,
) -> Iterator[_Prepared]:
    with open_slide(slide, reader=options.reader) as opened:
        loaded = load_model(model)
        path = _output_path(opened.path, output)
        target = inspect_target(path, loaded.spec.name, overwrite=overwrite)
        with open_client(options.workers, options.scheduler) as client:

            def probe(request: ProbeRequest) -> Measured:
                measured: Measured = client.submit(
                    measure, request, estimate=estimate, pure=False
                ).result()
                return measured

            made = make_plan(
                opened,
                loaded,
                target,
                options,
                probe=probe,
                workers=count_workers(client),
            )
            yield _Prepared(client, loaded, target, made)
