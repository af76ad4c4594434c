"""The ranks' threads under ThreadSanitizer, where the suite runs so; else a stress test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TURNS = "12"  # operations of each kind in a generation, about


def test_communicator_threads_agree_and_do_not_race() -> None:
    script = Path(__file__).with_name("communicator_threads.py")
    done = subprocess.run(
        [sys.executable, str(script), TURNS],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-8000:]
