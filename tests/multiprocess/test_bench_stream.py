"""`hpcore bench stream` measures what it says, and notices bytes that are not the sent ones."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hpcore.bench import plots
from hpcore.bench.result import Report
from hpcore.bench.stream import StreamOptions, _net, measure
from hpcore.bench.stream_peers import run_stream_peers
from hpcore.errors import HpcoreError

MIB = 1 << 20


def test_bench_stream_reports_every_case(tmp_path: Path) -> None:
    report = measure(StreamOptions(mib=16, tensors=8, rounds=1, say=lambda _: None))
    found = {(result.case, result.metric) for result in report.results}
    for method in ("arena", "process_vm_readv"):
        for case, metric in (
            ("one-source/{}/16MiB", "bandwidth"),
            ("one-source/{}/16MiB/threads=2", "bandwidth"),
            ("two-sources/{}/16MiB", "bandwidth"),
            ("small-tensors/{}/10000x4KiB", "bandwidth"),
            ("killed-and-slowed/{}/16MiB", "time"),
            ("memory/{}/16MiB", "peak_beyond_state"),
        ):
            assert (case.format(method), metric) in found
    memory = [r for r in report.results if r.metric == "peak_beyond_state"]
    if "HPCORE_SANITIZED" not in os.environ:  # a sanitizer's own memory counts
        assert all(max(result.samples) < 64 for result in memory)
    plots.plot_stream(report, tmp_path / "stream.svg")
    assert "two-sources" in (tmp_path / "stream.svg").read_text()


def test_bench_stream_notices_what_is_not_right() -> None:
    with _net(1, [MIB, MIB], True) as net:
        net.pull(1, 1, "arena")
        net.check()
        net.receiver.ask("fill", 3)
        with pytest.raises(HpcoreError, match="not what was sent"):
            net.check()


def test_bench_stream_says_why_a_peer_did_not_run() -> None:
    report = Report("stream")
    run_stream_peers(report, 16, 4, "/bin/false", lambda _: None)
    assert report.notes == ["torchft could not be run with /bin/false: it printed nothing"]
