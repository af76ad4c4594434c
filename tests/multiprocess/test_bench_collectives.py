"""`hpcore bench collectives` and `store` on a few small cases: real ranks, JSON and a plot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpcore.bench import collectives, plots, store
from hpcore.bench.exercises import FACTORS, Case, size_name
from hpcore.errors import HpcoreError, InvalidArgument

pytestmark = [pytest.mark.torch, pytest.mark.timeout(120)]


def test_bench_collectives_reports_every_case_against_gloo(tmp_path: Path) -> None:
    options = collectives.CollectivesOptions(
        sizes=(8, 128 << 10),
        ranks=(2,),
        seconds_a_case=0.01,
        oversubscribed=False,
        say=lambda _: None,
    )
    report = collectives.measure(options)
    report.write(tmp_path / "out.json")
    found = json.loads((tmp_path / "out.json").read_text())
    cases = {(r["case"], r["metric"]): r for r in found["results"]}
    for operation in FACTORS:
        for size in ("8B", "128KiB"):
            result = cases[f"{operation}/float32/{size}/ranks=2", "latency"]
            assert result["unit"] == "s" and result["p99"] >= result["p50"] > 0
            assert [other["name"] for other in result["against"]] == ["gloo"]
        result = cases[f"{operation}/float32/128KiB/ranks=2", "bandwidth"]
        assert [other["name"] for other in result["against"]] == ["gloo", "memcpy"]
        assert result["p99"] <= result["p50"]  # the bad end
    plots.plot_collectives(report, tmp_path / "out.svg")
    assert (tmp_path / "out.svg").read_text().count("all_reduce") >= 1
    with pytest.raises(InvalidArgument, match="must end in one of"):
        plots.check(tmp_path / "out.xyz")


def test_bench_store_reports_methods_waits_and_starts() -> None:
    report = store.measure(
        store.StoreOptions(calls=30, waits=5, inits=1, ranks=(2,), say=lambda _: None)
    )
    cases = [result.case for result in report.results]
    assert cases[:3] == ["set", "get", "set+get"] and cases[-2:] == ["wait", "init/ranks=2"]
    assert all(result.against[0].name == "tcpstore" for result in report.results)


def test_bench_collectives_refuse_a_wrong_result(monkeypatch: pytest.MonkeyPatch) -> None:
    from hpcore.bench import exercises

    def wrong(exercise: exercises.Exercise, group: object) -> None:
        exercise.whole.add_(1)

    monkeypatch.setattr(exercises.Exercise, "run", wrong)
    options = collectives.CollectivesOptions(
        operations=("all_reduce",), sizes=(8,), ranks=(2,), oversubscribed=False, say=lambda _: None
    )
    with pytest.raises(HpcoreError, match=r"[12] of 2 elements are wrong in rank"):
        collectives.measure(options)


def test_bench_cases_have_stable_names() -> None:
    assert Case("all_reduce", "float32", 1 << 20).name("2") == "all_reduce/float32/1MiB/ranks=2"
    assert [size_name(n) for n in (8, 4096, 64 << 20)] == ["8B", "4KiB", "64MiB"]
    assert not Case("all_gather", "float32", 8).fits(4) and Case("all_gather", "float32", 16).fits(
        4
    )
    assert Case("all_reduce", "bfloat16", 8).fits(4)
