"""Device meshes across generations: their process groups are made anew, the mesh objects stay.

A DeviceMesh names its groups, and torch looks the names up; FSDP2, DTensors and compiled graphs
hold on to meshes and names. So `rebuild` keeps every mesh object, changes the groups behind it,
and, where this process has taken another rank, its coordinate. A group's name says what it is for,
not who is in it: it is the same on all ranks and in all generations, so that a graph that was
compiled in a rehearsal, as another rank, still finds its group. Making groups takes no
communication. One thread.
"""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch.distributed as dist
from torch._C._distributed_c10d import _resolve_process_group
from torch.distributed.device_mesh import DeviceMesh

from hpcore.errors import Unsupported

Partition = tuple[tuple[int, ...], ...]
"""The groups of one mesh dimension: global ranks, each group's in the order of its group ranks."""


@dataclass(frozen=True)
class Membership:
    """A default group that is to be: its store, and who this process is in it."""

    store: Any
    rank: int
    world_size: int
    timeout: timedelta


def all_meshes(more: Iterable[DeviceMesh] = ()) -> list[DeviceMesh]:
    """Every device mesh of this process that torch still uses, and `more`."""
    found = {id(mesh): mesh for mesh in more}
    for thing in gc.get_objects():
        if type(thing) is DeviceMesh:
            found[id(thing)] = thing
    return [mesh for mesh in found.values() if hasattr(mesh, "_dim_group_names")]


def partitions(mesh: DeviceMesh) -> list[Partition]:
    """For each dimension of a mesh the groups that all ranks together have along it."""
    try:
        layout, ranks = mesh._layout, mesh._rank_map
        kind = type(layout)
        return [
            tuple(tuple(row) for row in kind([layout[dim]]).remap_to_tensor(ranks).tolist())
            for dim in range(len(layout))
        ]
    except (AttributeError, TypeError) as error:
        raise Unsupported(
            f"this torch keeps a DeviceMesh in another way than 2.13 and 2.14 do ({error}): its "
            "groups cannot be made anew"
        ) from error


def rebuild(membership: Membership, more: Iterable[DeviceMesh] = ()) -> list[DeviceMesh]:
    """Ends all process groups and makes the default group and those of all meshes anew.

    Groups that are in no mesh are gone afterwards, their holders must make new ones. Returns the
    meshes. Does not block, and sends nothing: each group connects at its first operation.
    """
    meshes = all_meshes(more)
    backend = dist.get_backend_config() if dist.is_initialized() else "hpcore"
    backends = [_backends(mesh) for mesh in meshes]
    if dist.is_initialized():
        dist.destroy_process_group()
    dist.init_process_group(
        backend,
        store=membership.store,
        rank=membership.rank,
        world_size=membership.world_size,
        timeout=membership.timeout,
    )
    made: dict[str, Any] = {}
    for mesh in meshes:
        mesh._pg_registry.clear()
    for mesh, kinds in zip(meshes, backends, strict=True):
        _renew(mesh, kinds, membership, made)
    return meshes


def _backends(mesh: DeviceMesh) -> list[str]:
    """The backend of each dimension's group; "" for the default one's."""
    if not dist.is_initialized():
        return [""] * mesh.ndim
    default = dist.get_backend_config()
    found = []
    for name in mesh._dim_group_names:
        try:
            kind = dist.get_backend_config(_resolve_process_group(name))
        except (RuntimeError, ValueError):  # left over from an older generation
            kind = default
        found.append("" if kind == default else kind)
    return found or [""] * mesh.ndim


def _renew(
    mesh: DeviceMesh, kinds: list[str], membership: Membership, made: dict[str, Any]
) -> None:
    names = mesh.mesh_dim_names or tuple(f"dim_{dim}" for dim in range(mesh.ndim))
    groups = []
    for name, kind, partition in zip(names, kinds, partitions(mesh), strict=True):
        mine = next((ranks for ranks in partition if membership.rank in ranks), None)
        if mine is not None:
            groups.append(_group(f"{name}:{kind}", kind, partition, mine, membership, made))
    mesh._dim_group_names = [group.group_name for group in groups]
    root = mesh._get_root_mesh()
    root._pg_registry.update({group.group_name: group for group in groups})
    mesh._rank = membership.rank
    mesh._coordinate_on_dim = mesh._compute_coordinate_on_dim() if groups else None


def _group(
    purpose: str,
    kind: str,
    partition: Partition,
    mine: tuple[int, ...],
    membership: Membership,
    made: dict[str, Any],
) -> Any:
    """The group of one dimension that this rank is in; meshes of one purpose share it."""
    if not kind and mine == tuple(range(membership.world_size)):
        return dist.group.WORLD
    digest = hashlib.sha256(repr(partition).encode()).hexdigest()[:12]
    name = f"mesh:{purpose}:{digest}"
    if name not in made:
        made[name] = make_group(name, mine, membership, kind)
    return made[name]


def make_group(name: str, ranks: tuple[int, ...], membership: Membership, kind: str = "") -> Any:
    """A group of `ranks`, this one among them; elsewhere another group may have its name."""
    from torch.distributed.distributed_c10d import (
        Backend,
        GroupName,
        PrefixStore,
        _new_process_group_helper,
    )

    default_store = dist.distributed_c10d._get_default_store()
    group, _ = _new_process_group_helper(
        len(ranks),
        ranks.index(membership.rank),
        list(ranks),
        Backend(kind or dist.get_backend_config()),
        PrefixStore(".".join(map(str, ranks)) + "/", default_store),
        GroupName(name),
        timeout=membership.timeout,
        group_desc=name,
    )
    dist.distributed_c10d._world.pg_group_ranks[group] = {r: i for i, r in enumerate(ranks)}
    return group
