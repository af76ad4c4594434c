"""`hpcore demo --quick` as a user runs it: real processes through all faults and a resize, equal to
the bit.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "python"


@pytest.mark.timeout(400)
def test_demo_survives_every_fault_and_writes_its_report(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    command = [sys.executable, "-m", "hpcore", "demo", "--quick", "--plain", "--out", str(out)]
    done = subprocess.run(
        [*command, "--json", str(tmp_path / "copy.json")],
        env={**os.environ, "PYTHONPATH": str(PACKAGE)},
        capture_output=True,
        text=True,
        timeout=380,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    report = json.loads((out / "report.json").read_text())
    assert json.loads((tmp_path / "copy.json").read_text()) == report
    assert report["ok"] and all(check["holds"] for check in report["checks"])
    assert len(report["recoveries"]) == len(report["plan"]["faults"]) == 6
    assert report["summary"]["largest_difference_before_resize"] == 0.0
    page = (out / "report.html").read_text()
    assert "to the bit" in page and len(page) < 2_000_000
    assert "back after" in done.stdout and str(out / "report.html") in done.stdout
