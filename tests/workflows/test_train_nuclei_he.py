"""The script that trained the bundled model still runs and still writes a model that loads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

from wsi_unet.models import load_model

ROOT = Path(__file__).resolve().parents[2]


def test_two_iterations_write_a_model_that_loads(tmp_path: Path) -> None:
    script, data = ROOT / "workflows" / "train_nuclei_he.py", ROOT / "tests" / "data"
    command = [sys.executable, str(script), str(data), str(tmp_path / "model")]
    command += ["--iterations", "2", "--hold-out", "3", "--threads", "1", "--workers", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr

    model = load_model(tmp_path / "model")
    assert model.spec.architecture == load_model("nuclei-he").spec.architecture
    assert model.spec.training_data.startswith("2 fields")
    held_out = model.spec.metrics["held_out"]
    assert isinstance(held_out, dict)
    assert held_out["images"] == 1
    logits = model.build()(torch.rand(1, 3, 100, 108))
    assert logits.shape == (1, 2, 12, 20)
    assert bool(torch.isfinite(logits).all())
