"""The cases of `hpcore bench overhead` that tell what copies and comparisons cost."""

from __future__ import annotations

import pytest

from hpcore.bench.protection import ProtectionOptions, measure_into
from hpcore.bench.result import Report

pytestmark = pytest.mark.torch


def test_copies_and_comparisons_are_measured_against_a_step() -> None:
    report = Report("overhead")
    measure_into(report, ProtectionOptions(12, 2, lambda _: None))
    found = {(r.case, r.metric): r for r in report.results}
    for kind in ("shadow", "compare"):
        stall = found[f"{kind}/K=1/12MiB", "stall"]
        assert len(stall.samples) == 2 and stall.p50 > 0
        assert [other.name for other in stall.against] == ["step", "memcpy"]
        assert found[f"{kind}/K=1/12MiB", "step_time"].against[0].name == "unprotected"
