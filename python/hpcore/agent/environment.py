"""The environment of a worker: torchrun's variables and ours. Pure."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class JobEnvironment:
    """What all workers of a job have in common."""

    job: str
    nproc: int
    port: int
    segment_fd: int
    log_dir: str
    faults: str
    recovery_deadline_s: float
    max_restarts: int
    agent_pid: int
    ranks: int = 0
    """Ranks of the whole job, on several nodes; 0: this is the only one."""

    def of_worker(self, slot: int, incarnation: int, rank: int | None) -> dict[str, str]:
        """Variables of one worker; a standby (`rank` None) has the identity of the last rank."""
        ranks, here = self.ranks or self.nproc, self.nproc
        number = ranks - 1 if rank is None else rank
        shown, size = str(number), str(ranks)
        return {
            "RANK": shown,
            "WORLD_SIZE": size,
            "LOCAL_RANK": str(number % here),
            "LOCAL_WORLD_SIZE": str(here),
            "GROUP_RANK": str(number // here),
            "GROUP_WORLD_SIZE": str(-(-ranks // here)),
            "ROLE_RANK": shown,
            "ROLE_WORLD_SIZE": size,
            "ROLE_NAME": "default",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(self.port),
            "TORCHELASTIC_RUN_ID": self.job,
            "TORCHELASTIC_RESTART_COUNT": "0",
            "TORCHELASTIC_MAX_RESTARTS": str(self.max_restarts),
            "HPCORE_SEGMENT_FD": str(self.segment_fd),
            "HPCORE_SLOT": str(slot),
            "HPCORE_INCARNATION": str(incarnation),
            "HPCORE_JOB": self.job,
            "HPCORE_LOG_DIR": self.log_dir,
            "HPCORE_FAULTS": self.faults,
            "HPCORE_RECOVERY_DEADLINE_S": repr(self.recovery_deadline_s),
            "HPCORE_AGENT_PID": str(self.agent_pid),
            "HPCORE_STANDBY": "1" if rank is None else "0",
        }


def template_environment(env: Mapping[str, str]) -> dict[str, str]:
    """The agent's own environment, as the template and so all workers inherit it."""
    base = {key: value for key, value in os.environ.items() if not key.startswith("HPCORE_SLOT")}
    base.update(env)
    base.setdefault("OMP_NUM_THREADS", "1")
    base.setdefault(
        "OPENBLAS_NUM_THREADS", "1"
    )  # no thread pool in the template: it is to be forked
    # Huge pages for tensors: a heal takes half the time, a killed worker's memory is freed in 2 ms
    # instead of 41 (docs/decisions.md). glibc reads it when the template starts.
    tunables = base.get("GLIBC_TUNABLES", "")
    if "glibc.malloc.hugetlb" not in tunables:
        base["GLIBC_TUNABLES"] = f"{tunables}:glibc.malloc.hugetlb=1".lstrip(":")
    return base


def free_port() -> int:
    """A TCP port that is free now, for scripts that make a TCPStore of their own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
