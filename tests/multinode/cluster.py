"""Hosts on one bridge, each a network namespace of its own, with etcd on the first; `hpcore run` on
the others."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import etcd_server
import links

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPT = ROOT / "tests" / "scripts" / "train_small.py"
PATIENCE_S = 90.0


def why_not() -> str | None:
    """Why there can be no cluster here."""
    return links.why_not() or etcd_server.why_not()


class Cluster:
    """`hosts` compute nodes 10.78.0.2 and on; the namespace of the bridge is 10.78.0.1."""

    def __init__(self, folder: Path, hosts: int) -> None:
        self.folder = folder
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.centre = links.Host()
        self.hosts = [links.Host() for _ in range(hosts)]
        self.etcd: etcd_server.EtcdServers | None = None
        try:
            self._wire()
            (folder / "etcd").mkdir()
            self.etcd = etcd_server.EtcdServers(
                folder / "etcd", host="10.78.0.1", prefix=self.centre.prefix
            )
        except BaseException:
            self.close()
            raise

    def _wire(self) -> None:
        centre = self.centre
        centre.run("ip", "link", "set", "lo", "up")
        centre.run("ip", "link", "add", "br0", "type", "bridge", "forward_delay", "0")
        centre.run("ip", "address", "add", "10.78.0.1/24", "dev", "br0")
        centre.run("ip", "link", "set", "br0", "up")
        for number, host in enumerate(self.hosts):
            port = f"port{number}"
            peer = ("peer", "name", "eth0", "netns", str(host.pid))
            links.run("ip", "link", "add", port, "netns", str(centre.pid), "type", "veth", *peer)
            centre.run("ip", "link", "set", port, "master", "br0", "up")
            host.run("ip", "link", "set", "lo", "up")
            host.run("ip", "address", "add", f"10.78.0.{number + 2}/24", "dev", "eth0")
            host.run("ip", "link", "set", "eth0", "up")

    def cut(self, host: int) -> None:
        """Nothing reaches this host any more, nor does anything leave it."""
        self.centre.run("ip", "link", "set", f"port{host}", "down")

    def mend(self, host: int) -> None:
        self.centre.run("ip", "link", "set", f"port{host}", "up")

    def start(self, host: int, steps: int, *options: str, name: str = "") -> str:
        """`hpcore run` on a host; returns the name of this agent's files."""
        name = name or f"host{host}"
        out = self.folder / f"{name}.out"
        out.mkdir()
        assert self.etcd is not None
        command = [
            *self.hosts[host].prefix,
            *(sys.executable, "-m", "hpcore", "run", "--coordinator", self.etcd.address),
            *("--job", "test", "--log-dir", str(self.folder / f"{name}.log"), *options),
            *(str(SCRIPT), str(out), str(steps)),
        ]
        with open(self.folder / f"{name}.txt", "wb") as said:
            self.processes[name] = subprocess.Popen(
                command, stdout=said, stderr=said, start_new_session=True, cwd=self.folder
            )
        return name

    def events(self, name: str, kind: str = "") -> Iterator[dict[str, Any]]:
        path = self.folder / f"{name}.log" / "events.jsonl"
        if not path.exists():
            return
        for line in path.read_text().splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if not kind or event["event"] == kind:
                yield event

    def wait(self, told: Callable[[], bool], what: str) -> None:
        until = time.monotonic() + PATIENCE_S
        while not told():
            assert time.monotonic() < until, f"{what}:\n{self.said()}"
            time.sleep(0.02)

    def wait_step(self, name: str, step: int, generation: int = 0) -> None:
        """Until a rank of this node has committed a step (in a later generation)."""
        self.wait(
            lambda: any(
                e["step"] >= step and e["generation"] > generation
                for e in self.events(name, "commit")
            ),
            f"{name} does not commit step {step} after generation {generation}",
        )

    def finish(self, *names: str) -> None:
        """Waits for agents to end well; ranks take their time no longer."""
        (self.folder / "slow").unlink(missing_ok=True)
        for name in names:
            try:
                code = self.processes[name].wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                raise AssertionError(f"{name} does not end:\n{self.said()}") from None
            assert code == 0, f"{name} ended with {code}:\n{self.said()}"

    def kill_host(self, name: str) -> None:
        """All processes of an agent at once, as when its machine loses power."""
        for pid in self.family(name):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.processes[name].wait()

    def family(self, name: str) -> list[int]:
        """The agent and everything it has started, the agent first."""
        agent = self.processes[name].pid
        parents = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    fields = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()
                    parents[int(entry)] = int(fields[1])
                except OSError:
                    continue
        found = [agent]
        for pid in found:
            found += [child for child, parent in parents.items() if parent == pid]
        return found

    def results(self, *names: str) -> dict[int, Any]:
        """What ranks wrote, by rank."""
        found = {}
        for name in names:
            for file in (self.folder / f"{name}.out").glob("rank*.json"):
                found[int(file.stem[4:])] = json.loads(file.read_text())["result"]
        return found

    def said(self) -> str:
        texts = [
            f"--- {name}\n{(self.folder / f'{name}.txt').read_text()[-2500:]}"
            for name in self.processes
        ]
        return "\n".join(texts)

    def close(self) -> None:
        for name, process in self.processes.items():
            if process.poll() is None:
                self.kill_host(name)
        if self.etcd is not None:
            self.etcd.close()
        for host in (*self.hosts, self.centre):
            host.close()
