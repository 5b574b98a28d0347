"""dciodvfy, which checks DICOM files against the standard (Debian: dicom3tools)."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def check_dicom(path: Path) -> list[str]:
    """Return the errors of a DICOM file; skip the test where there is no dciodvfy."""
    program = shutil.which("dciodvfy")
    if program is None:
        pytest.skip("dciodvfy isn't installed: apt-get install dicom3tools")
    done = subprocess.run(
        [program, "-new", str(path)], capture_output=True, text=True, check=False, timeout=120
    )
    return [line for line in (done.stdout + done.stderr).splitlines() if "Error" in line]
