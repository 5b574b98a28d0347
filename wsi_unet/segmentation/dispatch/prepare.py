"""From a slide on disk to a run that can begin: opened, planned, locked and laid out."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from threading import Event, Lock
from typing import Any

from distributed import Client

from wsi_unet import locations
from wsi_unet.dask_cluster.cluster import Workers, count_workers
from wsi_unet.dask_cluster.visibility import check_paths
from wsi_unet.dask_cluster.workers import in_this_process, processes_per_core
from wsi_unet.errors import ModelError, OptionError
from wsi_unet.models.checkpoint import Model
from wsi_unet.models.importing.checkpoints import load_or_import_model
from wsi_unet.models.inference.ensemble import Ensemble
from wsi_unet.models.stored_network import OTHER_PROCESS
from wsi_unet.segmentation.dispatch.execution import Execution
from wsi_unet.segmentation.dispatch.output import lay_out
from wsi_unet.segmentation.planning.existing_output import Target, inspect_target
from wsi_unet.segmentation.planning.options import Options
from wsi_unet.segmentation.planning.plan import Plan, make_plan
from wsi_unet.segmentation.worker.probe import ProbeRequest, WorkerMeasurement, measure_worker
from wsi_unet.slides.opening import open_slide
from wsi_unet.storage.lock import Owner, acquire
from wsi_unet.storage.store import open_store


@dataclass(frozen=True, kw_only=True)
class SlideJob:
    """One slide to be segmented.

    Attributes:
        slide: path or URL of a slide that `open_slide` opens.
        output: path or URL of the OME-Zarr to write; None is `<stem>.ome.zarr` right here.
        model: a bundled model's name, or the path of a model.
        others: more models, whose probabilities are averaged with the model's.
        options: what the caller wants.
        overwrite: replace what is there under the model's name, if it differs or not.
    """

    slide: str
    output: str | None = None
    model: str = "nuclei-he"
    others: tuple[str, ...] = ()
    options: Options = field(default_factory=Options)
    overwrite: bool = False


def default_output(slide: str | Path) -> str:
    """Return where the result goes when nothing is said: `<stem>.ome.zarr` right here.

    >>> default_output("slides/a.ome.tif"), default_output("s3://bucket/b.svs")
    ('a.ome.zarr', 'b.ome.zarr')
    """
    name = PurePosixPath(str(slide).rstrip("/")).name
    return f"{PurePosixPath(name).stem.removesuffix('.ome') or name}.ome.zarr"


class Preparation:
    """Prepares slides, in several threads at once; what they share is found out once.

    Args:
        client: the cluster.
        stop: set when no run is to begin any more.
    """

    def __init__(self, client: Client, stop: Event | None = None) -> None:
        self._client = client
        self._stop = stop or Event()
        self._models: dict[tuple[str, bool], Model] = {}
        self._loading = Lock()
        self._measured: dict[tuple[Any, ...], WorkerMeasurement] = {}
        self._measuring = Lock()
        self._folders: set[tuple[str, str]] = set()
        self._checking = Lock()

    def plan(self, job: SlideJob) -> Plan:
        """Work out a run and its cost; nothing is written.

        Raises:
            InputError: the slide, the model or an option is unusable.
            OutputError: the output can't be used.
            PlanError: the machine can't afford the run.
        """
        return self._plan(job, self._target(job), estimate=True)

    def prepare(self, job: SlideJob) -> Execution:
        """Open, plan, lock and lay out a run; its caller must `close` it.

        Raises:
            InputError: the slide, the model or an option is unusable.
            OutputError: the output can't be used, or somebody else writes to it.
            PlanError: the machine can't afford the run; nothing was written.
            KeyboardInterrupt: nothing is to begin any more.
        """
        started = time.perf_counter()
        target = self._target(job)  # refuses before anything is written, the lock included
        what = f"segment {locations.name(job.slide)}"
        lock = acquire(open_store(target.path), owner=Owner.current(what))
        try:
            target = self._target(job)
            plan = self._plan(job, target, estimate=False)
            if self._stop.is_set():
                raise KeyboardInterrupt
            ensemble = self._ensemble(job)
            output = lay_out(plan, target, ensemble)
            seconds = time.perf_counter() - started
            return Execution(self._client, plan, ensemble, output, lock, seconds)
        except BaseException:
            lock.release()
            raise

    def _target(self, job: SlideJob) -> Target:
        path = _output_location(job.slide, job.output)
        ensemble = self._ensemble(job)
        groups = tuple(group.name for group in ensemble.groups)
        return inspect_target(path, ensemble.name, groups, overwrite=job.overwrite)

    def _plan(self, job: SlideJob, target: Target, *, estimate: bool) -> Plan:
        ensemble = self._ensemble(job)
        with open_slide(job.slide, reader=job.options.reader) as slide:
            self._check_paths(str(slide.path), target.path, ensemble)
            return make_plan(
                slide,
                ensemble,
                target,
                job.options,
                probe=lambda request: self._measure(request, estimate=estimate),
                workers=self._workers(),
            )

    def _workers(self) -> Workers:
        """Return what workers there are; one where all have gone, to plan for those that come."""
        found = count_workers(self._client)
        if not found.processes:
            return Workers(1, 1, 1, 1)
        return replace(found, per_core=processes_per_core(self._client))

    def _ensemble(self, job: SlideJob) -> Ensemble:
        """Return what a job runs, its models loaded and checked once."""
        trust = job.options.trust
        models = tuple(self._model(name, trust) for name in (job.model, *job.others))
        return Ensemble(models, job.options.tta)

    def _model(self, name: str, trust: bool) -> Model:
        """Return a model, loaded and checked once.

        Raises:
            ModelError: if it can't be loaded, or not by the workers.
        """
        with self._loading:
            model = self._models.get((name, trust)) or load_or_import_model(name, trust=trust)
            self._models[name, trust] = model
        if model.in_process and not in_this_process(self._client):
            raise ModelError(OTHER_PROCESS)
        return model

    def _measure(self, request: ProbeRequest, *, estimate: bool) -> WorkerMeasurement:
        """Measure on a worker; what slides of about one size have in common only once."""
        key = (request.model.sha256, *request.alike(), estimate)
        with self._measuring:
            known = self._measured.get(key)
            if known is None:
                known = self._measured[key] = self._ask_worker(request, estimate=estimate)
                return known
        known = known.for_slide(request)
        if known.agreement is None:
            return known
        again = replace(request, tile=known.tile)
        return replace(known, agreement=self._ask_worker(again, estimate=False).agreement)

    def _ask_worker(self, request: ProbeRequest, *, estimate: bool) -> WorkerMeasurement:
        future = self._client.submit(measure_worker, request, estimate=estimate, pure=False)
        measured: WorkerMeasurement = future.result()
        return measured

    def _check_paths(self, slide: str, output: str, ensemble: Ensemble) -> None:
        """Make sure that the workers see the same files, once for every folder."""
        folders = locations.parent(slide), locations.parent(output)
        with self._checking:
            if folders in self._folders:
                return
            models = [str(model.path) for model in ensemble.models]
            check_paths(self._client, readable=[slide, *models], writable=[folders[1]])
            self._folders.add(folders)


def _output_location(slide: str, output: str | None) -> str:
    """Return where the result goes.

    Raises:
        OptionError: if writing there could destroy the slide.
    """
    place = locations.resolve(default_output(slide) if output is None else output)
    source = locations.resolve(slide)
    if locations.is_url(place) != locations.is_url(source):
        return place
    inner, outer = (
        (PurePosixPath(one) if locations.is_url(one) else Path(one).resolve())
        for one in (source, place)
    )
    if inner == outer or inner in outer.parents or outer in inner.parents:
        raise OptionError(
            f"the output {place} is the slide itself, or one lies inside the other; choose another "
            "place with --output"
        )
    return place
