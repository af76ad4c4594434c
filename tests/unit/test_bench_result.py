"""The frame that all benches share: percentiles, ratios, units, and the JSON shape that is
promised.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from hpcore.bench.result import Report, Result, percentile, quantity
from hpcore.errors import InvalidArgument


def test_percentile_lies_between_the_nearest_samples() -> None:
    assert percentile([3.0, 1.0, 2.0], 50) == 2.0
    assert percentile([1.0, 2.0], 50) == 1.5
    assert percentile([0.0, 100.0], 99) == pytest.approx(99.0)
    assert percentile([5.0], 99) == 5.0


@given(st.lists(st.floats(-1e6, 1e6), min_size=1), st.floats(0, 100))
def test_percentile_is_within_the_samples(samples: list[float], q: float) -> None:
    slack = 1e-9 * max(abs(s) for s in samples)
    assert min(samples) - slack <= percentile(samples, q) <= max(samples) + slack


def test_percentile_of_nothing_is_an_error() -> None:
    with pytest.raises(InvalidArgument, match="measured nothing"):
        percentile([], 50)


def test_ratio_above_one_means_better_for_times_and_for_rates() -> None:
    time = Result("kill", "kill_to_commit", "s", [0.1])
    time.hold_against("torchft", [2.0])
    rate = Result("one-source", "bandwidth", "B/s", [4e9])
    rate.hold_against("memcpy", [8e9])
    assert time.against[0].ratio == pytest.approx(20)
    assert rate.against[0].ratio == pytest.approx(0.5)
    assert Result("r", "bandwidth", "B/s", [1.0, 2.0]).p99 == pytest.approx(1.01)


def test_quantity_chooses_a_unit_that_suits() -> None:
    assert quantity(0.0123, "s") == "12.3 ms"
    assert quantity(2.5e-7, "s") == "250 ns"
    assert quantity(0.0, "s") == "0 ns"
    assert quantity(11.5e9, "B/s") == "11.5 GB/s"
    assert quantity(float("nan"), "s") == "-"


def test_report_names_the_commit_at_its_start(monkeypatch: pytest.MonkeyPatch) -> None:
    report = Report("recovery")
    before = report.to_dict()["commit"]
    monkeypatch.setattr("hpcore.bench.result.commit", lambda: "moved")
    assert before != "moved"
    assert report.to_dict()["commit"] == before
    out = io.StringIO()
    report.print(Console(file=out, width=200))
    assert "moved" not in out.getvalue()


def test_report_has_the_shape_of_all_benches(tmp_path: Path) -> None:
    report = Report("recovery")
    result = report.add(Result("kill/512MiB", "kill_to_commit", "s", [0.1, 0.2, 0.3]))
    result.hold_against("memcpy", [0.05])
    report.write(tmp_path / "bench.json")
    found = json.loads((tmp_path / "bench.json").read_text())
    assert set(found) == {"bench", "commit", "hardware", "results"}
    assert set(found["hardware"]) == {"cpu", "cores", "memory_gib"}
    assert found["results"] == [
        {
            **{"case": "kill/512MiB", "metric": "kill_to_commit", "unit": "s", "n": 3},
            **{"p50": 0.2, "p99": pytest.approx(0.298)},
            "against": [{"name": "memcpy", "p50": 0.05, "ratio": pytest.approx(0.25)}],
        }
    ]


def test_report_prints_every_case() -> None:
    report = Report("recovery")
    report.add(Result("reform", "kill_to_commit", "s", [0.01]))
    console = Console(width=120, record=True, file=io.StringIO())
    report.print(console)
    text = console.export_text()
    assert "reform" in text and "10.0 ms" in text
