"""Worker processes that can't be started: one line, without waiting for them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import wsi_unet
print("read")
cluster = wsi_unet.ClusterOptions(workers=1)
try:
    list(wsi_unet.segment_cohort([], cluster))
except wsi_unet.ClusterError as error:
    print("refused:", error)
"""


def test_a_script_without_a_guard_is_refused(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300)
    lines = done.stdout.splitlines()
    assert lines[:2] == ["read", "read"]
    assert lines[2].startswith("refused: the worker processes can't be started: ")
    assert "below `if __name__ == '__main__':`" in done.stderr
    assert "An attempt has been made to start a new process" not in done.stderr
