"""Sharded tensors (DTensors): which part of which whole a rank holds. Pure, apart from `take_rank`.

The state of a rank is its local tensors; what they are parts of travels as a `Sharding`, a line of
text that is the same on all ranks. Two ranks hold the same part if their coordinates are equal in
all mesh dimensions that shard. Works with any placement but partial sums, which are no state.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hpcore.errors import MismatchError, Unsupported


def local_of(tensor: Any) -> Tensor:
    """The part that lies in this rank's memory: the tensor itself if it is not sharded."""
    part: Tensor | None = getattr(tensor, "_local_tensor", None)
    return tensor if part is None else part


def is_dtensor(tensor: Any) -> bool:
    """Whether `tensor` is a DTensor; does not import torch.distributed.tensor."""
    return getattr(tensor, "_local_tensor", None) is not None


def mesh_key(mesh: Any) -> str:
    """Equal for equal meshes, on all ranks."""
    text = repr((mesh._flatten_rank_map, mesh._layout, mesh.mesh_dim_names, mesh.device_type))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Sharding:
    """What a local tensor is a part of. Placements: "R", "S0" (dimension), "SS0/2" (strided)."""

    mesh: str
    placements: tuple[str, ...]
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @staticmethod
    def of(name: str, tensor: Any) -> Sharding:
        """Of a DTensor. Raises Unsupported, with the name, for a partial sum."""
        placements = tuple(_code(name, placement) for placement in tensor.placements)
        key = mesh_key(tensor.device_mesh)
        return Sharding(key, placements, tuple(tensor.shape), tuple(tensor.stride()))

    def __str__(self) -> str:
        return json.dumps([self.mesh, self.placements, self.shape, self.stride])

    @staticmethod
    def parse(text: str) -> Sharding:
        """The inverse of str()."""
        mesh, placements, shape, stride = json.loads(text)
        return Sharding(mesh, tuple(placements), tuple(shape), tuple(stride))

    def wrap(self, name: str, local: Tensor, meshes: Mapping[str, Any]) -> Tensor:
        """A DTensor around a local tensor, on the mesh of that key."""
        from torch.distributed.tensor import DTensor

        mesh = meshes.get(self.mesh)
        if mesh is None:
            raise MismatchError(
                f"{name} is sharded over a device mesh that this rank does not have: "
                "build the same meshes on every rank"
            )
        return DTensor.from_local(
            local,
            mesh,
            [_placement(code) for code in self.placements],
            run_check=False,
            shape=torch.Size(self.shape),
            stride=self.stride,
        )


def _code(name: str, placement: Any) -> str:
    kind = type(placement).__name__
    if kind == "Replicate":
        return "R"
    if kind == "Shard":
        return f"S{placement.dim}"
    if kind == "_StridedShard":
        return f"SS{placement.dim}/{placement.split_factor}"
    raise Unsupported(
        f"{name} is a DTensor with placement {placement}: hpcore tracks shards and replicas; "
        "redistribute it first"
    )


def _placement(code: str) -> Any:
    from torch.distributed.tensor import Replicate, Shard

    if code == "R":
        return Replicate()
    if code.startswith("SS"):
        from torch.distributed.tensor.placement_types import _StridedShard

        dim, _, factor = code[2:].partition("/")
        return _StridedShard(int(dim), split_factor=int(factor))
    return Shard(int(code[1:]))


def part_held(tensor: Any) -> str:
    """Which part of the whole this rank holds: equal on two ranks that hold the same."""
    where = tensor.device_mesh.get_coordinate()
    if where is None:
        return "none"
    shards = [
        str(at)
        for at, placement in zip(where, tensor.placements, strict=True)
        if not placement.is_replicate()
    ]
    return ".".join(shards)


def copies(tensor: Any, world_size: int) -> int:
    """How many ranks hold the same part."""
    mesh, distinct = tensor.device_mesh, 1
    for dim, placement in enumerate(tensor.placements):
        distinct *= 1 if placement.is_replicate() else mesh.size(dim)
    return max(1, world_size // distinct)


def take_rank(name: str, tensor: Any) -> bool:
    """Gives a DTensor local memory of the size that this rank's coordinate asks for.

    Returns whether it was made anew, with no content.
    """
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    mesh = tensor.device_mesh
    if mesh.get_coordinate() is None:
        raise Unsupported(f"{name}: this rank is not in the mesh of a tensor that it tracks")
    shape, _ = compute_local_shape_and_global_offset(tensor.shape, mesh, tensor.placements)
    local = tensor._local_tensor
    if tuple(local.shape) == tuple(shape):
        return False
    tensor._local_tensor = local.new_empty(shape)
    return True
