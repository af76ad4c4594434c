"""What `hpcore run` was asked for, checked before anything is started."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hpcore import elastic
from hpcore.agent import memory
from hpcore.errors import InvalidArgument
from hpcore.nodes.options import NodesOptions

MAX_SLOTS = 64
SPARE_SLOTS = 4
"""Slots beyond ranks and standbys: a dead worker's is used again only when no roster names it."""


@dataclass(frozen=True)
class AgentOptions:
    """All of `hpcore run`'s options and what a Python caller adds.

    `policy` says min, max and allowed sizes, and how patient to be; `min` and `max_nproc` are not
    given beside it. `command` is the script (or, with `module`, a module's name) and its arguments.
    `min` None: `nproc`, never shrink. `max_restarts` None: as many as it takes. `preload` None:
    HPCORE_PRELOAD, else what a torch script imports. `nodes`: of a job on several nodes.
    `on_event` is called in the agent's thread with each event of events.jsonl that the agent itself
    writes; it must not block.
    """

    nproc: int
    command: Sequence[str]
    standbys: int = 0
    min: int | None = None
    log_dir: str | None = None
    recovery_deadline_s: float = 60.0
    max_restarts: int | None = None
    inject: Sequence[str] = ()
    module: bool = False
    env: Mapping[str, str] = field(default_factory=dict)
    terminal: bool = True
    on_event: Callable[[dict[str, Any]], None] | None = None
    preload: Sequence[str] | None = None
    nodes: NodesOptions | None = None
    max_nproc: int | None = None
    policy: elastic.Policy | None = None
    staging_bytes: int = 4 << 20
    store_bytes: int = 64 << 20
    worker_estimate_bytes: int = memory.WORKER_ESTIMATE_BYTES
    available_bytes: Callable[[], int] = memory.mem_available_bytes

    @property
    def min_ranks(self) -> int:
        """The smallest world that is allowed after a loss."""
        if self.policy is not None:
            return self.policy.min
        return self.nproc if self.min is None else self.min

    @property
    def most_ranks(self) -> int:
        """The largest world there may be."""
        if self.policy is not None:
            return self.policy.max
        return max(self.nproc, self.max_nproc or 0)

    @property
    def slots(self) -> int:
        """Slots of the node segment."""
        wanted = max(self.nproc, self.most_ranks) + self.standbys + SPARE_SLOTS
        wanted += self.nproc if self.nodes is not None else 0  # of those who come while some go
        return wanted if wanted < MAX_SLOTS else MAX_SLOTS

    @property
    def faults(self) -> str:
        """The rules of --inject as HPCORE_FAULTS carries them."""
        return ";".join(self.inject)

    def check(self) -> None:
        """Raises InvalidArgument with one line that names the option, its value and the way out."""
        self._check_numbers()
        if not self.command:
            raise InvalidArgument(
                "there is no script to run: hpcore run [options] script.py [args]"
            )
        script = self.command[0]
        if not self.module and not os.path.isfile(script):
            what = "is a directory" if os.path.isdir(script) else "is not there"
            raise InvalidArgument(
                f"script {script!r} {what} (working directory {os.getcwd()}); for a module use -m"
            )
        if self.inject:
            from hpcore.drill import parse

            parse(self.faults)
        memory.check_start(
            self.nproc, self.standbys, self.available_bytes(), self.worker_estimate_bytes
        )

    def _check_numbers(self) -> None:
        if self.nproc < 1:
            raise InvalidArgument(f"--nproc {self.nproc}: a job has at least 1 rank")
        if self.standbys < 0:
            raise InvalidArgument(f"--standbys {self.standbys}: must be 0 or more")
        self._check_policy()
        if self.nodes is not None:
            self.nodes.check()
        elif not 1 <= self.min_ranks <= self.nproc:
            raise InvalidArgument(f"--min {self.min} must be between 1 and --nproc {self.nproc}")
        workers = self.nproc + self.standbys
        if workers > MAX_SLOTS - SPARE_SLOTS:
            raise InvalidArgument(
                f"--nproc {self.nproc} + --standbys {self.standbys} = {workers} workers: one node "
                f"holds at most {MAX_SLOTS - SPARE_SLOTS} ({MAX_SLOTS} slots, {SPARE_SLOTS} of "
                "them for replacements)"
            )
        if self.recovery_deadline_s <= 0:
            raise InvalidArgument(
                f"--recovery-deadline {self.recovery_deadline_s}: must be above 0 s"
            )
        if self.max_restarts is not None and self.max_restarts < 0:
            raise InvalidArgument(f"--max-restarts {self.max_restarts}: must be 0 or more")

    def _check_policy(self) -> None:
        policy = self.policy
        if policy is None:
            return
        if self.min is not None or self.max_nproc is not None:
            raise InvalidArgument("min and max are the policy's: give them there")
        if policy.fit(self.nproc) != self.nproc:
            raise InvalidArgument(
                f"--nproc {self.nproc} is no size that the policy allows: {policy.describe_sizes()}"
            )
        if policy.by_size:
            raise InvalidArgument(
                "the policy's by_size is not applied by `hpcore run`: the batch stays the same at "
                "any number of ranks; leave it out, and set the learning rate in the script"
            )
        if policy.max > MAX_SLOTS - SPARE_SLOTS:
            raise InvalidArgument(
                f"the policy's max {policy.max}: one node holds at most {MAX_SLOTS - SPARE_SLOTS}"
            )


def default_log_dir() -> str:
    """runs/<date>-<time>-<pid> in the working directory."""
    return os.path.join("runs", f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}")


def default_preload(env: Mapping[str, str]) -> list[str]:
    """Modules that the template imports: HPCORE_PRELOAD (comma-separated, may be empty), else
    torch and hpcore."""
    if "HPCORE_PRELOAD" in env:
        return [name.strip() for name in env["HPCORE_PRELOAD"].split(",") if name.strip()]
    return ["torch", "torch.distributed", "torch._dynamo", "torch.optim", "hpcore"]


def interpreter_flags() -> list[str]:
    """This interpreter's -X, -W, -O... for the template."""
    import subprocess

    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return [sys.executable, *flags]
