"""Small cohorts that are never segmented, and their reports."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from support.standin import report

from wsi_unet.cohorts.cohort import CohortSlide
from wsi_unet.segmentation.runs.jobs import SlideJob, SlideOutcome

FOLDER = "out"


class CostlyClock:
    """A clock that tests set; each look at it takes `cost` seconds."""

    def __init__(self, cost: float = 0.0) -> None:
        self.now = 100.0
        self.cost = cost

    def __call__(self) -> float:
        self.now += self.cost
        return self.now


def listed(count: int = 3, **columns: str) -> list[CohortSlide]:
    names, values = tuple(columns), tuple(columns.values())
    return [
        CohortSlide(SlideJob(slide=f"/s/{i}.svs", output=f"out/{i}.ome.zarr"), names, values)
        for i in range(count)
    ]


def finished(slide: CohortSlide, **changes: Any) -> SlideOutcome:
    return SlideOutcome(slide.job, replace(report(str(slide.job.output)), **changes))


def json_file() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(Path("out/cohort.json").read_bytes())
    return document


def csv_file() -> list[dict[str, str]]:
    text = Path("out/cohort.csv").read_bytes().decode()
    return list(csv.DictReader(io.StringIO(text, newline="")))


def statuses() -> list[str]:
    found = [row["status"] for row in json_file()["slides"]]
    assert found == [row["status"] for row in csv_file()]
    return found
