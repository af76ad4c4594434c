"""The sharded models of a job: who runs which micro-batches, and how they follow into a generation.

Imports torch.distributed only when a model is given. One thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn

from hpcore.errors import InvalidArgument, JobStopped, Unsupported
from hpcore.gradients import STEP_TIMEOUT_S
from hpcore.membership.roster import Roster
from hpcore.sharding import copies, is_dtensor, local_of, take_rank


@dataclass(frozen=True)
class Lane:
    """One of the `count` equal parts of a step's micro-batches.

    Ranks that hold parts of one model (tensor parallel) share a lane; `counts`: this rank's sums
    are those of its lane.
    """

    index: int
    count: int
    counts: bool = True


class Shards:
    """Modules that `fully_shard` or `parallelize_module` has sharded; empty in most jobs."""

    def __init__(self) -> None:
        self.modules: list[nn.Module] = []
        self.managed: list[Tensor] = []
        """Parameters whose gradients come reduced out of backward."""
        self.checkpoint_group: Any = None
        """Of all ranks, for the thread that writes checkpoints."""
        self.rank = 0
        self._rank_built = 0

    def add(self, model: nn.Module) -> tuple[list[nn.Parameter], list[tuple[str, nn.Parameter]]]:
        """Takes a model; returns its sharded parameters, and the others with their names."""
        import torch.distributed as dist

        from hpcore.integrations import fsdp2

        fsdp2.sum_gradients(model)
        parameters = list(model.named_parameters())
        managed = [p for _, p in parameters if is_dtensor(p)]
        plain = [(name, p) for name, p in parameters if p.requires_grad and not is_dtensor(p)]
        if not managed:
            raise InvalidArgument(
                f"{type(model).__name__} has no sharded parameter: call fully_shard(model) before "
                "job.shard(model), or job.replicate(model) if every rank is to hold all of it"
            )
        self.modules.append(model)
        self.managed += managed
        self.rank = self._rank_built = dist.get_rank()
        return managed, plain

    @property
    def pristine(self) -> bool:
        """Whether this process still is the rank as which it built the model."""
        return self.rank == self._rank_built

    def lane(self, rank: int, world_size: int) -> Lane:
        """The part of the work of this rank, which must be what the meshes say."""
        if not self.modules:
            return Lane(rank, world_size)
        mesh = self._data_mesh()
        if mesh is None:
            return Lane(0, 1, rank == 0)
        where, index = mesh.get_coordinate(), 0
        for at, size in zip(where, mesh.shape, strict=True):
            index = index * size + at
        return Lane(index, mesh.size(), bool((mesh.mesh == 0).any()))

    def _data_mesh(self) -> Any:
        """The mesh along which FSDP2 deals data; None without FSDP2."""
        from hpcore.integrations import fsdp2

        meshes = [g.mesh_info.mesh for m in self.modules for g in fsdp2.param_groups(m)]
        return max(meshes, key=lambda mesh: mesh.size(), default=None)

    def check(self, micro_batches: int, world_size: int, plain: int) -> None:
        """Raises InvalidArgument or Unsupported for what cannot be run in step."""
        import torch.distributed as dist

        if not self.modules:
            return
        if dist.get_world_size() != world_size:
            raise InvalidArgument(
                f"the model is sharded over a world of {dist.get_world_size()}, the job has "
                f"{world_size} ranks: start it with `hpcore run` in place of torchrun"
            )
        lane = self.lane(self.rank, world_size)
        if micro_batches % lane.count:
            raise InvalidArgument(
                f"{micro_batches} micro-batches a step cannot be dealt evenly to {lane.count} "
                "data-parallel ranks of a sharded model, whose ranks gather in step: make "
                "global_batch / micro_batch a multiple of it"
            )
        if plain and lane.count != world_size:
            raise Unsupported(
                f"{plain} parameters are not sharded, but ranks share their micro-batches (tensor "
                "parallel): shard them, too, with fully_shard over the data-parallel mesh"
            )
        for tensor in self.managed:
            if self._data_mesh() is None and tensor.device_mesh.size() != world_size:  # type: ignore[attr-defined]
                raise Unsupported(
                    "the model is sharded over a part of the ranks without FSDP2: apply "
                    "fully_shard over a data-parallel mesh, which adds up the gradients"
                )

    # --- generations --------------------------------------------------------------------------

    def enter(self, worker: Any, roster: Roster, sharded: Sequence[tuple[str, Any]]) -> None:
        """Groups and meshes of the roster's generation; an aborted step's traces are removed.

        Does not block. Raises JobStopped for a world of another size.
        """
        if not self.modules:
            return
        from hpcore import distributed
        from hpcore.integrations import fsdp2, meshes

        rank = roster.rank_of(worker.slot)
        assert rank is not None
        self._check_size(roster.world_size)
        timeout = timedelta(seconds=STEP_TIMEOUT_S)
        store = distributed.store_of(worker, roster, timeout)
        membership = meshes.Membership(store, rank, roster.world_size, timeout)
        for model in self.modules:
            fsdp2.reset(model)
        held = [mesh for model in self.modules for mesh in fsdp2.meshes_of(model)]
        held += [tensor.device_mesh for _, tensor in sharded]
        meshes.rebuild(membership, held)
        everybody = tuple(range(roster.world_size))
        self.checkpoint_group = meshes.make_group("hpcore:checkpoint", everybody, membership)
        for model in self.modules:
            fsdp2.repoint(model, membership)
        if rank != self.rank:
            fsdp2.clear_caches()
            managed = {id(parameter) for parameter in self.managed}
            for name, tensor in sharded:
                anew = take_rank(name, tensor)
                if anew and id(tensor) in managed and self._data_mesh() is not None:
                    raise Unsupported(
                        f"{name} is unevenly sharded beside FSDP2: a standby that built the model "
                        f"as rank {self._rank_built} cannot become rank {rank}"
                    )
        self.rank = rank

    def _check_size(self, world_size: int) -> None:
        import torch.distributed as dist

        if dist.is_initialized() and dist.get_world_size() != world_size:
            raise JobStopped(
                f"the model is sharded over {dist.get_world_size()} ranks and the roster has "
                f"{world_size}: a sharded job keeps its size; run it without --min"
            )

    # --- gradients ----------------------------------------------------------------------------

    def norm(self, parameters: Sequence[Tensor], communicator: Any, world_size: int) -> float:
        """The 2-norm of all gradients of all ranks, each element once. Blocks until all came."""
        total = torch.zeros(len(parameters), dtype=torch.float64)
        for index, parameter in enumerate(parameters):
            if parameter.grad is not None:
                local = local_of(parameter.grad).to(torch.float64)
                held = copies(parameter, world_size) if is_dtensor(parameter) else world_size
                total[index] = local.square().sum() / held
        where = [(total.data_ptr(), total.numel())]
        communicator.all_reduce(where, "float64", "sum", STEP_TIMEOUT_S)
        return float(total.sum().sqrt())
