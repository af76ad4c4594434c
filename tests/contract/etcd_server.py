"""Real etcd servers on loopback ports of their own, for tests."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path


def why_not() -> str | None:
    """Why there is no etcd here."""
    if shutil.which("etcd") is None:
        return "etcd is not installed (Debian: etcd-server)"
    return None


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@dataclass
class EtcdServers:
    """A cluster; `arguments` go to each member, `prefix` before each command."""

    folder: Path
    count: int = 1
    host: str = "127.0.0.1"
    arguments: list[str] = field(default_factory=list)
    prefix: list[str] = field(default_factory=list)
    scheme: str = "http"

    def __post_init__(self) -> None:
        ports = free_ports(2 * self.count)
        self.ports, self._peer_ports = ports[: self.count], ports[self.count :]
        self._processes: list[subprocess.Popen[bytes] | None] = [None] * self.count
        self._said_before = [0] * self.count
        for index in range(self.count):
            self.start(index, wait=False)
        self.await_health()

    @property
    def address(self) -> str:
        return "etcd://" + ",".join(f"{self.host}:{port}" for port in self.ports)

    def start(self, index: int, wait: bool = True) -> None:
        peers = [f"m{i}=http://{self.host}:{p}" for i, p in enumerate(self._peer_ports)]
        own = f"{self.scheme}://{self.host}:{self.ports[index]}"
        peer = f"http://{self.host}:{self._peer_ports[index]}"
        log = open(self.folder / f"etcd{index}.log", "ab")  # noqa: SIM115
        self._said_before[index] = log.tell()
        with log:
            self._processes[index] = subprocess.Popen(
                [
                    *self.prefix,
                    *("etcd", "--name", f"m{index}", "--data-dir", f"{self.folder}/m{index}"),
                    *("--listen-client-urls", own, "--advertise-client-urls", own),
                    *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
                    *("--initial-cluster", ",".join(peers), "--initial-cluster-state", "new"),
                    *("--heartbeat-interval", "50", "--election-timeout", "500"),
                    *self.arguments,
                ],
                stdout=log,
                stderr=log,
            )
        if wait:
            self.await_health()

    def kill(self, index: int) -> None:
        process = self._processes[index]
        if process is not None:
            process.kill()
            process.wait()
        self._processes[index] = None

    def await_health(self) -> None:
        """Until each member that runs serves its clients."""
        deadline = time.monotonic() + 30
        for index, process in enumerate(self._processes):
            said = self.folder / f"etcd{index}.log"
            while process is not None and not _serves(
                said.read_bytes()[self._said_before[index] :]
            ):
                assert process.poll() is None, said.read_text()[-2000:]
                assert time.monotonic() < deadline, said.read_text()[-2000:]
                time.sleep(0.02)

    def close(self) -> None:
        for index in range(self.count):
            self.kill(index)


_SERVING = (b"serving insecure client", b"serving client", b"ready to serve client")


def _serves(log: bytes) -> bool:
    return any(sign in log for sign in _SERVING)
