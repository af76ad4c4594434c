"""How long a heal takes: 512 MiB pulled from one to three processes, beside one memcpy of it.

Run: PYTHONPATH=python python bench/bench_heal.py [--mib 512] [--heals 10] [--json FILE]. Sources
publish while the receiver pulls, as in a job; what arrived is checked against the source's bytes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "multiprocess"))

from state_process import Process

from hpcore import _core

MIB = 1 << 20
RECEIVER = 3


def sizes_of(mib: int) -> list[int]:
    """A transformer's mix: most bytes in large tensors, most tensors small."""
    small = [4096, 64, 12288, 4096] * 24
    large = 16 * MIB
    total = mib * MIB - sum(small)
    return [*small, *([large] * (total // large)), total % large]


def one_case(segment: Any, peers: list[Process], generation: int, sources: int, heals: int) -> Any:
    """Times of the heals and of the copies beside them."""
    receiver, used = peers[-1], peers[:sources]
    pulled, copied = [], []
    for number in range(heals):
        for source in used:
            source.send("publish", generation + number, source.slot, sources, [RECEIVER])
        arguments = [generation + number, [source.address for source in used], 60, "probe"]
        stats = receiver.ask("pull", *arguments)
        for source in used:
            source.answer()
        pulled.append(stats["seconds"])
        copied.append(receiver.ask("copy_seconds"))
    assert receiver.ask("digest") == used[0].ask("digest")
    return pulled, copied


def quantiles(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        "p50": statistics.median(ordered),
        "p99": ordered[min(len(ordered) - 1, 99 * len(ordered) // 100)],
    }


def run(mib: int, heals: int, pages: str) -> list[dict[str, Any]]:
    """All numbers of sources on one kind of pages."""
    segment = _core.NodeSegment.create(4, 1 << 16, 1 << 20)
    peers: list[Process] = []
    try:
        for slot in range(4):
            peers.append(Process(segment, slot, 5 if slot < RECEIVER else None, sizes_of(mib)))
            if pages == "huge":
                peers[-1].ask("use_huge_pages")
        results = []
        for sources in (1, 2, 3):
            pulled, copied = one_case(segment, peers, 100 * sources, sources, heals)
            times, memcpy = quantiles(pulled), quantiles(copied)
            results.append(
                {
                    "case": f"heal/{mib}MiB/sources={sources}/pages={pages}",
                    "metric": "time",
                    "unit": "s",
                    "n": heals,
                    **times,
                    "against": [
                        {"name": "memcpy", **memcpy, "ratio": memcpy["p50"] / times["p50"]}
                    ],
                }
            )
        return results
    finally:
        for peer in peers:
            peer.end()
        segment.close()


def hardware() -> dict[str, Any]:
    text = Path("/proc/cpuinfo").read_text()
    names = [line.split(":")[1].strip() for line in text.splitlines() if "model name" in line]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30
    return {
        "cpu": names[0] if names else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": memory,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=512)
    parser.add_argument("--heals", type=int, default=10)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results = []
    for pages in ("small", "huge"):
        for result in run(options.mib, options.heals, pages):
            results.append(result)
            memcpy = result["against"][0]
            print(
                f"{result['case']:40} p50 {1e3 * result['p50']:6.1f} ms"
                f"  p99 {1e3 * result['p99']:6.1f} ms  memcpy {1e3 * memcpy['p50']:6.1f} ms"
                f"  heal/memcpy {1 / memcpy['ratio']:.2f}"
            )
    if options.json:
        commit = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True
        ).stdout.strip()
        about = {"bench": "heal", "commit": commit, "hardware": hardware(), "results": results}
        options.json.write_text(json.dumps(about, indent=1))


if __name__ == "__main__":
    main()
