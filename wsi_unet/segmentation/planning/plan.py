"""The plan of a run: what it will do and cost, worked out before anything is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from wsi_unet.dask_cluster.workers import WorkerCounts
from wsi_unet.errors import SignatureError
from wsi_unet.geometry import BlockIndex, Box
from wsi_unet.models.inference.ensemble import Ensemble
from wsi_unet.segmentation.differences import describe_differences
from wsi_unet.segmentation.parameters import ImageParameters, LabelParameters, find_region
from wsi_unet.segmentation.planning.costs import Costs, check_affordable, count_costs
from wsi_unet.segmentation.planning.object_plan import ObjectCosts, ObjectPlan, plan_objects
from wsi_unet.segmentation.planning.options import Options
from wsi_unet.segmentation.planning.output_state import OutputState
from wsi_unet.segmentation.planning.resolved_options import ResolvedOptions, resolve_options
from wsi_unet.segmentation.references import ModelReference
from wsi_unet.segmentation.worker.measurement import ProbeRequest, WorkerMeasurement
from wsi_unet.slides.slide import Slide
from wsi_unet.slides.tissue.mask import TissueMask
from wsi_unet.slides.window_memory import decoding_bytes

ENLARGED_WARNING = 1.5
"""How much larger than the model's a slide's pixels may be before a warning."""


@dataclass(frozen=True)
class Plan:
    """What a run will do and what it will cost.

    Attributes:
        output: path or URL of the result.
        labels: the parameters of the label groups, resolved.
        image: the parameters of the slide's image; None where none is stored.
        costs: what the run needs.
        measured: a worker's speed and memory.
        mask: tissue, stretched over the slide; None predicts everywhere.
        resumes: whether blocks of an earlier run with this signature are kept.
        slide_warnings: what makes this slide's result or costs doubtful, one line each.
        model_warnings: what makes every result of the model or the ensemble doubtful, likewise.
        objects: how the labels' objects are found; None: they aren't.
        object_costs: what finding them needs, as far as that can be known; None: nothing.
        done: blocks of labels that an earlier run has done; counted only where the plan is all that
            is wanted, since a run counts them anyway.
    """

    output: str
    labels: LabelParameters
    image: ImageParameters | None
    costs: Costs
    measured: WorkerMeasurement
    mask: TissueMask | None = field(repr=False)
    resumes: bool
    slide_warnings: tuple[str, ...]
    model_warnings: tuple[str, ...]
    objects: ObjectPlan | None = None
    object_costs: ObjectCosts | None = None
    done: frozenset[BlockIndex] = frozenset()

    @property
    def seconds_left(self) -> float | None:
        """Estimated time of what isn't done; None where no speed was measured."""
        tissue = self.costs.tissue
        if self.costs.seconds is None or not tissue:
            return self.costs.seconds
        return self.costs.seconds * len(tissue - self.done) / len(tissue)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What makes the result or the costs doubtful, one line each."""
        return self.slide_warnings + self.model_warnings

    @property
    def outputs(self) -> tuple[str, ...]:
        """What is written."""
        return self.labels.outputs + (() if self.objects is None else ("objects",))

    @property
    def signature(self) -> str:
        """Hash of everything that decides the labels."""
        return self.labels.signature()

    @property
    def mpp(self) -> tuple[float, float] | None:
        """(y, x) size of a label pixel, µm; None where unknown."""
        if self.labels.slide.mpp is None:
            return None
        (y, x), (fy, fx) = self.labels.slide.mpp, self.labels.resampling.downsample
        return y * fy, x * fx

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON-able values."""
        resampling = self.labels.resampling
        return {
            "output": self.output,
            "signature": self.signature,
            "opened_slide": self.labels.slide.model_dump(mode="json"),
            "model": self.labels.model.model_dump(mode="json"),
            "label": self.labels.label,
            "label_groups": list(self.labels.label_groups),
            "mpp": self.mpp,
            "sampling": asdict(resampling),
            "resampled": resampling.ratio != (1.0, 1.0),
            "levels": self.labels.levels,
            "block": self.labels.block,
            "tile": self.labels.tile,
            "blocks": len(self.labels.blocks()),
            "precision": self.labels.precision,
            "device": self.labels.device,
            "exactness": self.labels.exactness,
            "inexact_because": self.labels.inexact_because,
            "agreement": self.labels.agreement,
            "tissue": self.labels.tissue,
            "outputs": list(self.outputs),
            "objects": None if self.objects is None else self.objects.to_json(),
            "tta": self.labels.tta,
            "statistics": [asdict(statistics) for statistics in self.labels.statistics],
            "regions": [list(region) for region in self.labels.regions],
            "image": None if self.image is None else self.image.mode,
            "resumes": self.resumes,
            "blocks_done": len(self.done),
            "seconds_left": self.seconds_left,
            "warnings": list(self.warnings),
            "object_costs": None if self.object_costs is None else asdict(self.object_costs),
            **self.costs.to_json(),
            "mpx_per_s": self.measured.mpx_per_s,
            "search": self.measured.describe_search(),
        }


def make_plan(
    slide: Slide,
    ensemble: Ensemble,
    output: OutputState,
    options: Options,
    *,
    probe: Callable[[ProbeRequest], WorkerMeasurement],
    workers: WorkerCounts,
) -> Plan:
    """Plan a run; nothing is written.

    Args:
        slide: the open slide.
        ensemble: the checked model or models, with the views they are shown.
        output: where the result goes, and what is there.
        options: what the caller wants.
        probe: measures on a worker.
        workers: the worker processes there are.

    Raises:
        InputError: an option doesn't fit the slide or the model.
        SignatureError: the output holds a run that differs in what decides the pixels.
        PlanError: the machine can't afford it.
    """
    objects = plan_objects(slide, ensemble, options)
    resolved = resolve_options(slide, ensemble, output, options)
    measured = probe(_make_request(ensemble, output, options, resolved, workers))
    labels = LabelParameters(
        slide=resolved.slide,
        model=ModelReference.from_ensemble(ensemble),
        label=output.label,
        groups=output.groups if ensemble.spec.multi_label else (),
        resampling=resolved.resampling,
        levels=resolved.levels,
        block=resolved.block,
        tile=measured.tile,
        precision=measured.precision,
        device=measured.device,
        tissue=resolved.tissue,
        outputs=tuple(name for name in options.outputs if name != "objects"),
        tta=ensemble.tta,
        statistics=resolved.statistics,
        appearance=resolved.appearance,
        regions=resolved.regions,
        exactness=ensemble.exactness,
        inexact_because=ensemble.inexact_because,
        agreement=measured.agreement,
        processes_per_core=workers.per_core,
        label_values=ensemble.label_count,
        classes=len(ensemble.spec.classes),
    )
    _check_same_run(output, labels)
    costs = count_costs(
        labels,
        resolved.image,
        border=ensemble.border(),
        classes=len(ensemble.spec.classes),
        mask=resolved.mask,
        measured=measured,
        processes=workers.processes,
        threads=workers.threads,
        decoding=decoding_bytes(slide.levels[resolved.resampling.level].tile),
    )
    warnings = check_affordable(
        labels, costs, measured, per_host=workers.per_host, free_disk=output.free_disk
    )
    found_in = costs.predicted_pixels * len(labels.label_groups)
    warnings += [*slide.warnings, *_warn(labels, costs, options), *resolved.warnings]
    return Plan(
        output=str(output.location),
        labels=labels,
        image=resolved.image,
        costs=costs,
        measured=measured,
        mask=resolved.mask,
        resumes=output.stored is not None,
        slide_warnings=tuple(warnings),
        model_warnings=tuple(_warn_of_models(ensemble)),
        objects=objects,
        object_costs=None if objects is None else objects.estimate(found_in, workers.processes),
    )


def _warn(labels: LabelParameters, costs: Costs, options: Options) -> list[str]:
    """Return what makes the result doubtful, though it can be computed."""
    warnings = []
    if not costs.tissue:
        warnings.append("no tissue was found; `tissue='none'` predicts everywhere")
    enlarged = 1 / min(labels.resampling.downsample)
    if enlarged > ENLARGED_WARNING:
        warnings.append(
            f"the slide's pixels are {enlarged:.3g} times as large as the model's, so it will be "
            "enlarged and lacks the detail that the model was trained on; if its pixel size is "
            "wrong, give `mpp`"
        )
    if options.region is not None and not labels.regions:
        warnings.append(
            "the output was started for the whole slide, so `region` doesn't make it smaller"
        )
    return warnings


def _warn_of_models(ensemble: Ensemble) -> list[str]:
    """Return why tiling can change labels, and what was assumed about the models."""
    warnings = []
    if ensemble.inexact_because:
        warnings.append(f"tiles may show in the labels: {ensemble.inexact_because}")
    for model in ensemble.models:
        if model.spec.assumed:
            warnings.append(
                f"assumed about {model.spec.name}, as nothing states it: "
                f"{'; '.join(model.spec.assumed)}"
            )
    return warnings


def _make_request(
    ensemble: Ensemble,
    output: OutputState,
    options: Options,
    resolved: ResolvedOptions,
    workers: WorkerCounts,
) -> ProbeRequest:
    """Return the choices that a worker has to make; what an earlier run chose is kept."""
    stored = output.stored

    def keep(wanted: str, before: str | None) -> str:
        return before if wanted == "auto" and before is not None else wanted

    return ProbeRequest(
        slide=resolved.slide,
        resampling=resolved.resampling,
        model=ModelReference.from_ensemble(ensemble),
        tta=ensemble.tta,
        statistics=resolved.statistics,
        device=keep(options.device, stored.device if stored else None),
        precision=keep(options.precision, stored.precision if stored else None),
        precisions=ensemble.precisions,
        tile=resolved.tile,
        block=resolved.block,
        mask=resolved.mask,
        probabilities=options.probabilities,
        agreement=stored.agreement if stored else None,
        processes_per_host=workers.per_host,
        processes_per_core=workers.per_core,
        # A number type that the caller chose needs no comparison to justify it.
        compares=options.precision == "auto" and stored is None,
        pixels=_count_pixels(resolved),
        processes=workers.processes,
    )


def _count_pixels(resolved: ResolvedOptions) -> int:
    """Return about how many pixels of the model's grid are tissue inside the regions."""
    shape = resolved.resampling.shape
    area = shape[0] * shape[1]
    if resolved.regions:
        area = sum(
            find_region(Box(*region), resolved.slide.shape, resolved.resampling).area
            for region in resolved.regions
        )
    return int(area * (1.0 if resolved.mask is None else resolved.mask.mean()))


def _check_same_run(output: OutputState, labels: LabelParameters) -> None:
    if output.stored is None:
        return
    changed = describe_differences(output.stored.identity(), labels.identity())
    if changed:
        raise SignatureError(
            f"{output.location}: {output.label!r} was computed with another {', '.join(changed)}; "
            "choose another `output`, or `overwrite=True` replaces it"
        )
