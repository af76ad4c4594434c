"""FSDP2 (`fully_shard`) under hpcore: steps that can be aborted, and groups that change.

An exception out of a collective in one of FSDP2's hooks leaves parameters unsharded, gathers under
way, half-reduced gradients and an order of prefetches that belongs to a backward that never ended.
`reset` takes all of it back; `repoint` makes a model use its meshes' new groups, as another rank if
need be. Both are local. One thread: the one that trains.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import debug

from hpcore.errors import Unsupported
from hpcore.integrations.meshes import Membership, make_group

_RS_NAME = "mesh:reduce_scatter"


def is_sharded(model: nn.Module) -> bool:
    """Whether `fully_shard` was applied to the module or to a part of it."""
    return next(_states(model), None) is not None


def _states(model: nn.Module) -> Iterator[Any]:
    seen: set[int] = set()
    for module in model.modules():
        if isinstance(module, FSDPModule):
            state = module._get_fsdp_state()
            if id(state) not in seen:
                seen.add(id(state))
                yield state


def param_groups(model: nn.Module) -> list[Any]:
    """FSDP2's parameter groups (FSDPParamGroup) of the model, outer modules first."""
    return [group for state in _states(model) for group in state._fsdp_param_groups]


def managed_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The sharded parameters: FSDP2 reduces their gradients."""
    return [p.sharded_param for group in param_groups(model) for p in group.fsdp_params]


def reset(model: nn.Module) -> None:
    """The model as between two steps, whatever a forward or backward left undone.

    Pending works are waited for and their results dropped: call it when they can end, that is when
    their peers go on or their generation is over. Gradients, accumulated ones too, are dropped.
    """
    for group in param_groups(model):
        _drop_pending(group)
    for state in _states(model):
        if state._is_root:
            state._reset_iter_state()
            state._state_ctx.is_last_backward = True
            state._state_ctx.post_optim_event = None
    for state in _states(model):
        state._modules_to_run_forward.clear()
    for group in param_groups(model):
        for parameter in group.fsdp_params:
            _reset_parameter(parameter)
        group._to_sharded()


def _drop_pending(group: Any) -> None:
    result, group._all_gather_result = group._all_gather_result, None
    works = [] if result is None else [result.all_gather_work]
    for work in works:
        if isinstance(work, dist.Work):
            try:
                work.wait()
            except Exception:  # of a generation that is over, or of the step that failed
                continue


def _reset_parameter(parameter: Any) -> None:
    parameter.unsharded_accumulated_grad = None
    parameter.grad_offload_event = None
    unsharded = getattr(parameter, "_unsharded_param", None)
    if unsharded is not None:
        unsharded.grad = None
    parameter.sharded_param.grad = None
    parameter.to_sharded()


def meshes_of(model: nn.Module) -> list[DeviceMesh]:
    """The meshes that FSDP2 holds for this model."""
    found: dict[int, DeviceMesh] = {}
    for group in param_groups(model):
        for info in _mesh_infos(group):
            for mesh in (info.mesh, info.spmd_mesh):
                if mesh is not None:
                    found[id(mesh)] = mesh
        for parameter in group.fsdp_params:
            for mesh in (parameter._spmd_mesh, parameter._shard_mesh):
                found[id(mesh)] = mesh
    return list(found.values())


def _mesh_infos(group: Any) -> list[Any]:
    infos = [group.mesh_info, group.post_forward_mesh_info]
    for parameter in group.fsdp_params:
        infos += [parameter.mesh_info, parameter.post_forward_mesh_info]
    return list({id(info): info for info in infos if info is not None}.values())


def repoint(model: nn.Module, membership: Membership) -> None:
    """Takes over the new groups of the model's meshes (`meshes.rebuild`), and this process's rank.

    Local shards of another size than before are made anew, with no content: their state is to be
    received. Raises Unsupported if only a new model could take the rank.
    """
    infos = {id(info): info for group in param_groups(model) for info in _mesh_infos(group)}
    for info in infos.values():
        separate = getattr(info, "reduce_scatter_process_group", None) is not None
        info.__post_init__()
        if separate:
            ranks = tuple(dist.get_process_group_ranks(info.shard_process_group))
            name = f"{_RS_NAME}:{info.shard_process_group.group_name}"
            known = dist.distributed_c10d._world.pg_names
            info.reduce_scatter_process_group = next(
                (group for group, taken in known.items() if taken == name), None
            ) or make_group(name, ranks, membership)
    for group in param_groups(model):
        for parameter in group.fsdp_params:
            _take_rank(parameter)
        _renew_transfers(group)


def _renew_transfers(group: Any) -> None:
    """Gathers and reductions that remember a process group."""
    kind = type(group._all_gather_comm).__name__
    if kind == "ProcessGroupAllocAllGather":
        group.set_allocate_memory_from_process_group(True)
    elif kind == "SymmMemAllGather":
        raise Unsupported(
            "FSDP2's symmetric memory (set_symm_mem) belongs to one process group for good: it "
            "cannot follow into the next generation; leave it off"
        )


def _take_rank(parameter: Any) -> None:
    info, dim = parameter.mesh_info, parameter.fsdp_placement.dim
    rank, whole = getattr(info, "shard_mesh_rank", 0), parameter._orig_size
    padded = parameter.padded_sharded_param_size
    size = _shard(whole, dim, padded[dim], rank)
    if size != parameter.sharded_size:
        parameter.sharded_size = size
        parameter.contiguous_sharded_stride = _contiguous(size)
        data = parameter._sharded_param_data.zero_().view(padded)
        parameter.sharded_param._local_tensor = data.narrow(dim, 0, size[dim])
    after = parameter.post_forward_mesh_info
    if after is not None and hasattr(after, "shard_mesh_size"):
        chunk = -(-whole[0] // after.shard_mesh_size)
        parameter.sharded_post_forward_size = _shard(whole, 0, chunk, after.shard_mesh_rank)
        parameter.contiguous_sharded_post_forward_stride = _contiguous(
            parameter.sharded_post_forward_size
        )


def _shard(whole: torch.Size, dim: int, chunk: int, rank: int) -> torch.Size:
    length = max(0, min(chunk, whole[dim] - rank * chunk))
    return torch.Size([*whole[:dim], length, *whole[dim + 1 :]])


def _contiguous(size: torch.Size) -> tuple[int, ...]:
    stride, total = [], 1
    for length in reversed(size):
        stride.append(total)
        total *= max(length, 1)
    return tuple(reversed(stride))


def sum_gradients(model: nn.Module) -> None:
    """FSDP2 adds gradients over ranks instead of averaging them: weights are in the loss."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)


def clear_caches() -> None:
    """Forgets what DTensor worked out for the rank that this process was."""
    clear = getattr(debug, "_clear_sharding_prop_cache", None)
    if clear is not None:
        clear()
