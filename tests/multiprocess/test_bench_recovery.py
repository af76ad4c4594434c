"""`hpcore bench recovery` on a small state: real kills, and the JSON shape of all benches."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "python"


@pytest.mark.timeout(200)
def test_bench_recovery_reports_every_case_with_its_split(tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    command = [sys.executable, "-m", "hpcore", "bench", "recovery", "--quick", "--json", str(out)]
    done = subprocess.run(
        [*command, "--state-mib", "16", "--kills", "2"],
        env={**os.environ, "PYTHONPATH": str(PACKAGE)},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    found = json.loads(out.read_text())
    assert found["bench"] == "recovery"
    by_case: dict[str, dict[str, dict[str, object]]] = {}
    for result in found["results"]:
        by_case.setdefault(result["case"], {})[result["metric"]] = result
    assert set(by_case) == {"kill/16MiB", "kill-rank0/16MiB", "reform"}
    for case, metrics in by_case.items():
        split = {"detect", "decide", "notify", "reform", "heal", "first_step"}
        assert {"kill_to_commit", *split} <= set(metrics), case
        assert all(m["unit"] == "s" and m["n"] == 2 for m in metrics.values()), case
        total = sum(float(str(metrics[name]["p50"])) for name in split)
        assert total > float(str(metrics["kill_to_commit"]["p50"])) > -total
    against = by_case["kill/16MiB"]["kill_to_commit"]["against"]
    assert [a["name"] for a in against] == ["memcpy"]  # type: ignore[attr-defined]
