"""State over provider tcp between network namespaces, beside iperf3 on the same links.

Run as root: python bench/bench_fabric.py [--json FILE] [--quick]. Needs iperf3, iproute2 and
libfabric. One source over an unshaped veth pair (bounded by the CPU), over 10 and over 1 Gbit/s
(tc tbf); three sources, each behind a link of 1 Gbit/s, into one receiver; 10,000 tensors of 4 KiB.
Every pull ends with its digests proved; rates are of the pull, connections included.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from hpcore.bench.result import Report, Result

ROOT = Path(__file__).resolve().parent.parent
sys.path += [str(ROOT / "tests" / "contract"), str(ROOT / "tests" / "multinode")]

from links import Host, join, why_not  # noqa: E402
from memory_process import Process  # noqa: E402

MIB = 1 << 20
OPTIONS = {"provider": "tcp", "answer_limit_s": 5.0}


class Net:
    """Sources, each behind a link of `rate` to one receiver."""

    def __init__(self, sources: int, rate: str) -> None:
        self.hosts = [Host() for _ in range(sources + 1)]
        self.links = [f"hplink{number}" for number in range(sources)]
        for number, link in enumerate(self.links):
            join(self.hosts[number], self.hosts[-1], link, number, rate)
        self.sources = [Process(prefix=host.prefix) for host in self.hosts[:-1]]
        self.receiver = Process(prefix=self.hosts[-1].prefix)
        self.generation = 0

    def make(self, sizes: list[int]) -> None:
        for source in self.sources:
            source.make(sizes, 11)
        self.receiver.make(sizes, 12)

    def pull(self) -> float:
        """Bytes per second of one pull."""
        self.generation += 1
        addresses = [
            source.ask("open_source", self.generation, index, len(self.sources), OPTIONS)
            for index, source in enumerate(self.sources)
        ]
        for source in self.sources:
            source.ask("publish")
        options = {**OPTIONS, "domains": self.links}
        stats: dict[str, Any] = self.receiver.ask(
            "pull_state", self.generation, addresses, options, 120
        )
        assert self.receiver.ask("digest") == self.sources[0].ask("digest")
        return float(stats["bytes"] / stats["seconds"])

    def iperf(self, seconds: float) -> float:
        """Bytes per second of one stream from each source, all at once."""
        servers = [
            subprocess.Popen(
                [*self.hosts[-1].prefix, "iperf3", "-s", "-1", "-p", str(5300 + number)],
                stdout=subprocess.DEVNULL,
            )
            for number in range(len(self.links))
        ]
        time.sleep(0.3)
        rates: list[float] = []

        def run(number: int) -> None:
            command = ["iperf3", "-c", f"10.77.{number}.2", "-p", str(5300 + number), "-J", "-t"]
            text = self.hosts[number].run(*command, str(seconds))
            rates.append(json.loads(text)["end"]["sum_received"]["bits_per_second"] / 8)

        threads = [
            threading.Thread(target=run, args=(number,)) for number in range(len(self.links))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for server in servers:
            server.wait(10)
        return sum(rates)

    def close(self) -> None:
        for process in (*self.sources, self.receiver):
            process.end()
        for host in self.hosts:
            host.close()


def measure(report: Report, name: str, net: Net, repeats: int, seconds: float) -> None:
    """Pulls and iperf3 in turns."""
    net.pull()  # opens libfabric, touches the memory
    pulls, streams = [], []
    for _ in range(repeats):
        pulls.append(net.pull())
        streams.append(net.iperf(seconds))
    result = report.add(Result(f"fabric-tcp/{name}", "bandwidth", "B/s", pulls))
    result.hold_against("iperf3", streams)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if why := why_not():
        print(f"not here: {why}")
        return 1
    repeats, seconds = (3, 1.0) if options.quick else (7, 3.0)
    report = Report("stream")
    big, small = [4 * MIB] * 64, [4096] * 10_000
    cases = [
        ("unshaped", 1, "", [16 * MIB] * 64),
        ("unshaped/4KiB", 1, "", small),
        ("10gbit", 1, "10gbit", big),
        ("1gbit", 1, "1gbit", big),
        ("three-sources/1gbit", 3, "1gbit", big),
    ]
    for name, sources, rate, sizes in cases:
        net = Net(sources, rate)
        try:
            net.make(sizes)
            measure(report, name, net, repeats, seconds)
        finally:
            net.close()
    report.print()
    if options.json:
        report.write(options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
