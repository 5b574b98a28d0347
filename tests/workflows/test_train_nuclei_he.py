"""The script that trained the bundled model still runs and still writes a model that loads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

from wsi_unet.models import load_model

ROOT = Path(__file__).resolve().parents[2]


def run_script(output: Path, *options: str) -> None:
    script, data = ROOT / "workflows" / "train_nuclei_he.py", ROOT / "tests" / "data"
    command = [sys.executable, str(script), str(data), str(output), "--iterations", "2"]
    command += ["--hold-out", "3", "--threads", "1", "--workers", "0", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


def test_two_iterations_write_a_model_and_the_same_one_again(tmp_path: Path) -> None:
    run_script(tmp_path / "first")
    run_script(tmp_path / "second")
    first, second = load_model(tmp_path / "first"), load_model(tmp_path / "second")

    assert first.spec.architecture == load_model("nuclei-he").spec.architecture
    held_out = first.spec.metrics["held_out"]
    assert isinstance(held_out, dict)
    assert held_out["images"] == 1
    assert first.spec.training_data.startswith("2 fields")
    logits = first.build()(torch.rand(1, 3, 100, 108))
    assert logits.shape == (1, 2, 12, 20)
    assert bool(torch.isfinite(logits).all())
    assert first.sha256 == second.sha256
