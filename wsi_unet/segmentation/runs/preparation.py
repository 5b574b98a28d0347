"""Preparing slides: opened, planned, locked and laid out, so that their blocks can start."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from threading import Event, Lock
from typing import Any, TypeVar

from distributed import Client

from wsi_unet import logs
from wsi_unet.dask_cluster.file_visibility import check_paths
from wsi_unet.dask_cluster.scheduler import scheduler_lost_error
from wsi_unet.dask_cluster.waiting import wait_for_result
from wsi_unet.dask_cluster.workers import (
    WorkerCounts,
    count_workers,
    processes_per_core,
    runs_in_this_process,
)
from wsi_unet.errors import ModelError
from wsi_unet.labels.progress import Progress
from wsi_unet.locations import Location
from wsi_unet.models.importing.imported_models import load_or_import_model
from wsi_unet.models.inference.ensemble import Ensemble
from wsi_unet.models.model import Model
from wsi_unet.models.stored_network import OTHER_PROCESS
from wsi_unet.segmentation.dispatch.policy import Limits
from wsi_unet.segmentation.planning.output_state import OutputState, inspect_output
from wsi_unet.segmentation.planning.plan import Plan, make_plan
from wsi_unet.segmentation.runs.execution import Execution
from wsi_unet.segmentation.runs.jobs import SlideJob, locate
from wsi_unet.segmentation.runs.output import lay_out
from wsi_unet.segmentation.runs.remaining import find_done
from wsi_unet.segmentation.worker.measurement import ProbeRequest, WorkerMeasurement
from wsi_unet.segmentation.worker.probe import compare_with_float32, measure_worker
from wsi_unet.slides.opening import open_slide
from wsi_unet.storage.locking.lock import LockOwner, acquire
from wsi_unet.storage.opening import open_store

CHOOSING_TILE = "choosing a tile"
MEASURING = "measuring the speed"
COMPARING = "comparing with float32"

ShowPhase = Callable[[str], None]
"""Called with what a preparation does now, in a few words."""

T = TypeVar("T")


class Preparation:
    """Prepares slides, in several threads at once; models, workers and folders are checked once.

    Args:
        client: the cluster.
        limits: how patient runs are with their blocks; None is `Limits()`.
        stop: set when no run is to start any more.
    """

    def __init__(
        self, client: Client, limits: Limits | None = None, stop: Event | None = None
    ) -> None:
        self._client = client
        self._limits = limits or Limits()
        self._stop = stop or Event()
        self._models: dict[tuple[str, bool], Model] = {}
        self._loading = Lock()
        self._measured: dict[tuple[Any, ...], WorkerMeasurement] = {}
        self._measuring = Lock()
        self._folders: set[tuple[Location, Location]] = set()
        self._checking = Lock()
        self._said: set[str] = set()

    def plan(self, job: SlideJob, show: ShowPhase = lambda _: None) -> Plan:
        """Plan a run and its cost; nothing is written.

        Args:
            job: the slide.
            show: called before each step that takes a while.

        Raises:
            InputError: the slide, the model or an option is unusable.
            OutputError: the output can't be used.
            PlanError: the machine can't afford the run.
        """
        slide, location = locate(job)
        ensemble = self._load_ensemble(job)
        output = _inspect(job, location, ensemble)
        plan = self._plan(job, slide, output, ensemble, estimate=True, show=show)
        if not plan.resumes:
            return plan
        return replace(
            plan, done=find_done(Progress(open_store(location), plan.labels.label), plan)
        )

    def prepare(self, job: SlideJob, show: ShowPhase = lambda _: None) -> Execution:
        """Open, plan, lock and lay out a run; its caller must `close` it.

        Args:
            job: the slide.
            show: called before each step that takes a while.

        Raises:
            InputError: the slide, the model or an option is unusable.
            OutputError: the output can't be used, or somebody else writes to it.
            PlanError: the machine can't afford the run; nothing was written.
            KeyboardInterrupt: no run is to start any more.
        """
        started = time.perf_counter()
        slide, location = locate(job)
        ensemble = self._load_ensemble(job)
        _inspect(job, location, ensemble)  # refuses before anything is written, the lock included
        owner = LockOwner.current(f"segment {slide.name}")
        lock = acquire(open_store(location), owner=owner)
        try:
            # Again, now that nobody else can change it.
            output = _inspect(job, location, ensemble)
            plan = self._plan(job, slide, output, ensemble, estimate=False, show=show)
            if self._stop.is_set():
                raise KeyboardInterrupt
            return Execution(
                self._client,
                plan,
                ensemble,
                lay_out(plan, output, ensemble),
                lock,
                limits=self._limits,
                startup_seconds=time.perf_counter() - started,
                said=self._said,
            )
        except BaseException:
            lock.release()
            raise

    def _plan(
        self,
        job: SlideJob,
        location: Location,
        output: OutputState,
        ensemble: Ensemble,
        *,
        estimate: bool,
        show: ShowPhase,
    ) -> Plan:
        options = job.options
        with open_slide(location, reader=options.reader, series=options.series) as slide:
            self._check_paths(location, output.location, ensemble)
            return make_plan(
                slide,
                ensemble,
                output,
                job.options,
                probe=lambda request: self._measure(request, estimate=estimate, show=show),
                workers=self._count_workers(),
            )

    def _count_workers(self) -> WorkerCounts:
        """Return the present workers; one where all have gone, to plan for those that come."""
        workers = count_workers(self._client)
        if not workers.processes:
            return WorkerCounts(1, 1, 1, 1)
        return replace(workers, per_core=processes_per_core(self._client))

    def _load_ensemble(self, job: SlideJob) -> Ensemble:
        """Return the models of a job, loaded and checked once."""
        trust = job.options.trust
        models = tuple(self._load_model(name, trust) for name in (job.model, *job.other_models))
        return Ensemble(models, job.options.tta)

    def _load_model(self, name: str, trust: bool) -> Model:
        """Return a model, loaded and checked once.

        Raises:
            ModelError: it can't be loaded, or not by the workers.
        """
        with self._loading:
            model = self._models.get((name, trust)) or load_or_import_model(name, trust=trust)
            self._models[name, trust] = model
        if model.in_process and not runs_in_this_process(self._client):
            raise ModelError(OTHER_PROCESS)
        return model

    def _measure(
        self, request: ProbeRequest, *, estimate: bool, show: ShowPhase
    ) -> WorkerMeasurement:
        """Return what a worker measures; slides of about one size are measured only once."""
        key = (request.model.sha256, *request.speed_key(), estimate)
        with self._measuring:
            known = self._measured.get(key)
            if known is None:
                known = self._ask_worker(measure_worker, request, search=False, estimate=False)
            if request.pixels >= known.search_pixels:
                show(CHOOSING_TILE)
                known = self._ask_worker(measure_worker, request, search=True, estimate=False)
            if estimate and known.mpx_per_s is None:
                show(MEASURING)
                known = self._ask_worker(measure_worker, request, search=False, estimate=True)
            self._measured[key] = known
        known = known.adapt_to(request)
        if request.compares and request.pixels >= known.comparison_pixels:
            show(COMPARING)
            found = self._ask_worker(compare_with_float32, request)
            known = replace(known, agreement=found.agreement, compared_seconds=found.seconds)
        logs.event(
            "worker measured", slide=request.slide.name, tile=known.tile, **known.describe_search()
        )
        return known

    def _ask_worker(self, measure: Callable[..., T], request: ProbeRequest, **how: bool) -> T:
        """Return what a worker answers to a request."""
        try:
            future = self._client.submit(measure, request, **how, pure=False)
        except (OSError, RuntimeError) as error:  # the client has closed itself
            raise scheduler_lost_error(self._client) from error
        return wait_for_result(self._client, future)

    def _check_paths(self, slide: Location, output: Location, ensemble: Ensemble) -> None:
        """Check that the workers see the same files, once for every pair of folders."""
        folders = slide.parent, output.parent
        with self._checking:
            if folders in self._folders:
                return
            models = [str(model.path) for model in ensemble.models]
            check_paths(self._client, readable=[str(slide), *models], writable=[str(output.parent)])
            self._folders.add(folders)


def _inspect(job: SlideJob, location: Location, ensemble: Ensemble) -> OutputState:
    groups = tuple(group.name for group in ensemble.groups)
    return inspect_output(location, ensemble.name, groups, overwrite=job.overwrite)
