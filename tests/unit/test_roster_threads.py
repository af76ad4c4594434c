"""The roster's threads under ThreadSanitizer, where the suite runs so; else a stress test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_roster_threads_agree_and_do_not_race() -> None:
    script = Path(__file__).with_name("roster_threads.py")
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-8000:]
