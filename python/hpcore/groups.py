"""What serves a process group of the `hpcore` backend.

CPU tensors: shared memory where all ranks are on one host, torch's Gloo where they are not. CUDA
tensors: torch's own NCCL group, made when the first of them comes. torch makes one group at a time
in a process; not thread-safe beyond that.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hpcore.errors import DeadlineExceeded, InvalidArgument

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Backend

    from hpcore import _c10d, _core


@dataclass(frozen=True)
class Place:
    """Where a group belongs: its store, the worker (None outside `hpcore run`), the generation."""

    store: _c10d.StoreMemory | _core.SharedStore
    worker: _core.Worker | None
    generation: int
    rank: int
    world_size: int
    rehearsal: bool


class Resources:
    """What all groups of this process share: the flight recorder and the memory budget.

    Read once from the environment: TORCH_FR_BUFFER_SIZE, the number of operations that are
    remembered (0: none; 2000), TORCH_FR_DUMP_TEMP_FILE, where a timeout writes them (the rank is
    appended; nowhere), HPCORE_BUFFER_MIB, shared memory for the buffers of a rank's groups (64).
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        from hpcore import _c10d

        remembered = _whole(
            environment, "TORCH_FR_BUFFER_SIZE", 2000, "TORCH_NCCL_TRACE_BUFFER_SIZE"
        )
        where = environment.get("TORCH_FR_DUMP_TEMP_FILE") or environment.get(
            "TORCH_NCCL_DEBUG_INFO_TEMP_FILE", ""
        )
        self.recorder = _c10d.FlightRecorder(remembered, where)
        self.budget = _c10d.MemoryBudget(_whole(environment, "HPCORE_BUFFER_MIB", 64) << 20)


def _whole(environment: Mapping[str, str], name: str, default: int, older: str = "") -> int:
    text = environment.get(name, environment.get(older, str(default)))
    if not text.strip().isdigit():
        raise InvalidArgument(f"{name}={text!r}: needs a whole number of 0 or more")
    return int(text)


class Hosts:
    """Which global rank is on which host, told through the store when a default group is made."""

    def __init__(self) -> None:
        self._of_world: list[str] = []

    def all_one(self, store: Any, rank: int, size: int, global_ranks: Sequence[int]) -> bool:
        """Whether all ranks of a group can share memory.

        Blocks, for a default group (no global_ranks), until all its ranks have said where they are,
        at most for the store's timeout; a sub-group asks nobody.
        """
        if not global_ranks:
            self._of_world = tell_hosts(store, rank, size)
            return len(set(self._of_world)) == 1
        return len({self._of_world[r] for r in global_ranks if r < len(self._of_world)}) <= 1

    def forget(self) -> None:
        """The next groups are of a world that is on one host by its making."""
        self._of_world = []


def this_host() -> str:
    """Kernel and PID namespace: equal in two processes exactly if each is in the other's /proc."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        boot = file.read().strip()
    return f"{boot}/{os.readlink('/proc/self/ns/pid')}"


def tell_hosts(store: Any, rank: int, size: int) -> list[str]:
    """The host of each rank; blocks until all have told theirs.

    Raises DeadlineExceeded, which names the ranks that have not, after the store's timeout.
    """
    store.set(f"host/{rank}", this_host())
    keys = [f"host/{other}" for other in range(size)]
    try:
        store.wait(keys)
        if store.has_extended_api():
            return [value.decode() for value in store.multi_get(keys)]
        return [store.get(key).decode() for key in keys]
    except RuntimeError as error:  # DistStoreError is one
        missing = [other for other, key in enumerate(keys) if not store.check([key])]
        raise DeadlineExceeded(
            f"init_process_group('hpcore'): ranks {missing} of {size} have not come within the "
            f"store's timeout (this is rank {rank}): are they running? See their logs"
        ) from error


def create(options: Any, place: Place | None, one_host: bool, resources: Resources) -> Backend:
    """The backend of one group; `options` as torch gives them to a backend's maker.

    Does not block where all ranks are on one host; Gloo connects its ranks here.
    """
    from hpcore import _c10d

    worker = None if place is None or place.worker is None else place.worker.native_handle
    generation = 1 if place is None else place.generation
    rehearsal = place is not None and place.rehearsal
    if one_host:
        cpu = _c10d.make_backend(
            options.store,
            options.group_rank,
            options.group_size,
            options.timeout,
            options.group_id,
            list(options.global_ranks_in_group),
            worker,
            generation,
            rehearsal,
            resources.recorder,
            resources.budget,
            getattr(options, "enable_reconfigure", False),  # torch 2.14
        )
    else:
        cpu = _gloo(options)
    if rehearsal or not _has_nccl():
        return cpu
    from torch.distributed.distributed_c10d import PrefixStore

    store = PrefixStore("accelerator/", options.store)
    composite: Backend = _c10d.make_composite(
        cpu, store, options.timeout, make_nccl, "cuda", worker, generation
    )
    return composite


def _gloo(options: Any) -> Any:
    from torch.distributed.distributed_c10d import PrefixStore, ProcessGroupGloo

    store = PrefixStore("gloo/", options.store)
    gloo = ProcessGroupGloo(store, options.group_rank, options.group_size, timeout=options.timeout)
    gloo.options.global_ranks_in_group = list(options.global_ranks_in_group)
    gloo.options.group_name = options.group_id
    if not hasattr(gloo, "reconfigure"):  # torch 2.14 starts at 0 by itself, and warns
        gloo._set_sequence_number_for_group()
    return gloo


def _has_nccl() -> bool:
    import torch
    import torch.distributed as dist

    return torch.cuda.is_available() and dist.is_nccl_available()


def make_nccl(
    store: Any, rank: int, size: int, timeout: Any, name: str, global_ranks: list[int]
) -> Any:
    """torch's own NCCL group; its unique id goes through `store`. Called from native code."""
    from torch.distributed.distributed_c10d import GroupName, ProcessGroupNCCL

    options = ProcessGroupNCCL.Options()
    options._timeout = timeout
    options.group_name = GroupName(name)
    options.global_ranks_in_group = global_ranks
    return ProcessGroupNCCL(store, rank, size, options)
