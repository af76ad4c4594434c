"""torchft's transports beside ours, run in an environment that has them by bench/peers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import hpcore
from hpcore.bench.result import Report
from hpcore.errors import NotFound


def run_stream_peers(
    report: Report, mib: int, tensors: int, python: str, say: Callable[[str], None]
) -> None:
    """Holds the one-source results against each of torchft's transports.

    Raises NotFound if there is no checkout with bench/peers.
    """
    driver = Path(hpcore.__file__).resolve().parents[2] / "bench" / "peers" / "torchft_stream.py"
    if not driver.is_file():
        raise NotFound(f"--peers needs a checkout: there is no {driver}")
    command = [python or sys.executable, str(driver), "--mib", str(mib), "--tensors", str(tensors)]
    say("torchft's transports")
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        last = done.stderr.strip().splitlines()[-1:] or ["it printed nothing"]
        report.notes.append(f"torchft could not be run with {command[0]}: {last[0]}")
    for result in report.results:
        if result.case.startswith("one-source/") and "threads" not in result.case:
            for line in lines:
                result.hold_against(line["name"], line["bytes_per_s"], line["note"])
