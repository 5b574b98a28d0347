"""The slide of the fault tests, its undisturbed run, and the comparison of runs with it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support import fault_runner
from support.fault_runner import Client, Ended
from support.oracle import balanced_model, textured, write_png
from support.runs import array_objects, temporaries

from wsi_unet.labels.progress import BlockMarker, Progress
from wsi_unet.models import UNetConfig
from wsi_unet.segmentation.planning.options import Options
from wsi_unet.segmentation.runs.jobs import SlideJob
from wsi_unet.storage.opening import open_store

LABEL = "random"
ARRAYS = (LABEL, "image")


@dataclass(frozen=True)
class FaultStudy:
    """A slide, a model, and the undisturbed run.

    Attributes:
        folder: holds `slide.png`, `model` and the store `truth`.
        block: side of a block, px.
    """

    folder: Path
    block: int = 512

    @classmethod
    def make(cls, folder: Path, shape: tuple[int, int] = (2100, 3000)) -> FaultStudy:
        """Write a slide of (rows, columns) px and a model, and run the command undisturbed."""
        study = cls(folder)
        image = textured(*shape)
        image[:, : shape[1] // 4] = 245  # glass: blocks of which nothing is stored
        write_png(folder / "slide.png", image)
        config = UNetConfig(depth=2, base_width=4)
        balanced_model(config, image[: shape[0] // 2, -shape[0] // 2 :], folder / "model")
        ended = study.run(study.truth, core=0)
        assert ended.code == 0, ended.said
        (folder / "report.json").write_text(json.dumps(ended.report))
        return study

    @property
    def truth(self) -> Path:
        """The store of the undisturbed run."""
        return self.folder / "truth"

    def blocks(self, run: str = LABEL) -> list[str]:
        """Return the blocks of the labels or the image ("1.2")."""
        return sorted(path.stem for path in self.marker_files(self.truth, run))

    @staticmethod
    def marker_files(output: Path, run: str = LABEL) -> list[Path]:
        """Return the paths of the markers."""
        return [*(output / ".wsi_unet" / run / "blocks").glob("*.json")]

    def start(self, output: Path, *options: str, log: Path | None = None, **others: Any) -> Client:
        """Start the command, which differs only in these options."""
        return fault_runner.start(
            "segment", self.folder / "slide.png", "-o", output, "-m", self.folder / "model",
            "--block", str(self.block), "--tile", "128", "--precision", "float32",
            "--device", "cpu", "--mpp", "0.5", "--image", "full",
            "--outputs", "labels,objects,probabilities", "--json", "-q", *options,
            log=log or output.with_name(f"{output.name}.log"), **others,
        )  # fmt: skip

    def job(self, output: Path) -> SlideJob:
        """Return the job that the command does."""
        options = Options(
            block=self.block,
            tile=128,
            precision="float32",
            device="cpu",
            mpp=0.5,
            image="full",
            outputs=("labels", "objects", "probabilities"),
        )
        slide, model = str(self.folder / "slide.png"), str(self.folder / "model")
        return SlideJob(slide=slide, output=str(output), model=model, options=options)

    def run(self, output: Path, *options: str, **others: Any) -> Ended:
        """Run the command to its end."""
        return self.start(output, *options, **others).wait()


def differences(study: FaultStudy, output: Path, report: dict[str, Any] | None) -> list[str]:
    """Return the differences from the undisturbed run, one line each.

    Args:
        study: the slide and its undisturbed run.
        output: the output to compare.
        report: report that the last run printed.
    """
    found = [
        f"other bytes: {key}"
        for key, _ in sorted(array_objects(output).items() ^ array_objects(study.truth).items())
    ]
    for run in ARRAYS:
        ours, theirs = markers(output, run), markers(study.truth, run)
        found += [f"{run}: block lost: {block}" for block in theirs.keys() - ours.keys()]
        found += [f"{run}: block too many: {block}" for block in ours.keys() - theirs.keys()]
        found += [
            f"{run}: block counted differently: {block}"
            for block in ours.keys() & theirs.keys()
            if ours[block] != theirs[block]
        ]
    for group in ("", f"labels/{LABEL}", f"probability/{LABEL}"):
        if attributes(output, group) != attributes(study.truth, group):
            found.append(f"other attributes: {group or 'root'}")
    expected = json.loads((study.folder / "report.json").read_text())
    if report is None:
        return [*found, "no report"]
    found += [f"report: {key} differs" for key in ("classes",) if report[key] != expected[key]]
    if count_objects(report) != count_objects(expected):
        found.append(f"report: objects differ: {report['objects']}")
    for key in ("blocks", "image"):
        same = ("total", "done", "failed", "empty")
        if {name: report[key][name] for name in same} != {n: expected[key][n] for n in same}:
            found.append(f"report: {key} differ: {report[key]}")
    if report["state"] != "finished" or report["failures"]:
        found.append(f"report: {report['state']}: {report['failures']}")
    found += [f"left behind: {path.name}" for path in leftovers(output)]
    if os.path.lexists(output / ".wsi_unet" / "lock.json"):
        found.append("left behind: the lock")
    return found


def count_objects(report: dict[str, Any]) -> list[Any]:
    """Return what a report says about each label group's objects, but not how they were found."""
    return [(found["label"], found["left"], found["classes"]) for found in report["objects"]]


def leftovers(output: Path) -> list[Path]:
    """Return the files that killed writers left behind."""
    return [path for path in temporaries(output) if path.suffix in (".partial", ".deleted")]


def markers(output: Path, run: str) -> dict[str, tuple[Any, ...]]:
    """Return the markers' contents without times and durations."""
    progress = Progress(open_store(str(output)), run)
    record = progress.read_run()
    found: list[BlockMarker] = []
    if record is not None:
        found = [*progress.read_markers(record.signature)]
    return {
        f"{m.block[0]}.{m.block[1]}": (m.signature, m.counts, m.predicted, m.shards) for m in found
    }


def attributes(output: Path, group: str) -> Any:
    """Return a group's attributes without times."""
    document = json.loads((output / group / "zarr.json").read_text())
    ours = document["attributes"].get("wsi_unet", {})
    for name in ("created", "finished"):
        if name in ours:
            ours[name] = ours[name] is not None
    return document


@contextmanager
def small_disk(folder: Path, mebibytes: int) -> Iterator[None]:
    """Mount a small file system at a folder inside.

    Raises:
        OSError: if that can't be done here.
    """
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", str(folder)]
    mounted = subprocess.run(["mount", *options], capture_output=True, text=True, check=False)
    if mounted.returncode:
        raise OSError(f"can't mount a small file system here: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
