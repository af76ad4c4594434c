"""Hosts made of network namespaces, joined by veth pairs. Nothing has a name in the file system:
a namespace lives as long as the process that holds it, its links as long as the namespace."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path


def why_not() -> str | None:
    """Why hosts cannot be made here."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for tool in ("ip", "unshare", "nsenter"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed (Debian: iproute2, util-linux)"
    tried = subprocess.run(["unshare", "-n", "true"], capture_output=True, text=True)
    return tried.stderr.strip() or None


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


class Host:
    """A network namespace; `prefix` goes before a command that is to run in it."""

    def __init__(self) -> None:
        self._holder = subprocess.Popen(["unshare", "-n", "sleep", "infinity"])
        self.pid = self._holder.pid
        own = os.readlink("/proc/self/ns/net")
        deadline = time.monotonic() + 10
        while os.readlink(f"/proc/{self.pid}/ns/net") == own:
            assert self._holder.poll() is None, "unshare failed"
            assert time.monotonic() < deadline
            time.sleep(0.002)
        self.prefix = ["nsenter", "-t", str(self.pid), "-n"]

    def run(self, *command: str) -> str:
        return run(*self.prefix, *command)

    def received_bytes(self, interface: str) -> int:
        for line in Path(f"/proc/{self.pid}/net/dev").read_text().splitlines():
            name, _, numbers = line.partition(":")
            if name.strip() == interface:
                return int(numbers.split()[0])
        raise AssertionError(f"{interface} is not there")

    def close(self) -> None:
        self._holder.kill()
        self._holder.wait()


def join(one: Host, other: Host, name: str, subnet: int, rate: str = "") -> None:
    """A link of this name in both hosts, 10.77.<subnet>.1 and .2; `rate`: of tc's tbf."""
    run(
        "ip",
        "link",
        "add",
        name,
        "netns",
        str(one.pid),
        "type",
        "veth",
        "peer",
        "name",
        name,
        "netns",
        str(other.pid),
    )
    for number, host in enumerate((one, other), 1):
        host.run("ip", "address", "add", f"10.77.{subnet}.{number}/24", "dev", name)
        host.run("ip", "link", "set", name, "up")
        if rate:
            host.run(
                "tc",
                "qdisc",
                "add",
                "dev",
                name,
                "root",
                "tbf",
                "rate",
                rate,
                "burst",
                "256kb",
                "latency",
                "20ms",
            )
    await_up(name, one, other)


def await_up(name: str, *hosts: Host) -> None:
    """Until the link carries."""
    deadline = time.monotonic() + 10
    for host in hosts:
        while "state UP" not in host.run("ip", "-o", "link", "show", name):
            assert time.monotonic() < deadline, f"{name} does not come up"
            time.sleep(0.002)
