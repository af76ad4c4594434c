"""How a tensor lies in memory, and whether it can be sent as it lies. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hpcore.errors import Unsupported
from hpcore.sharding import Sharding, local_of


@dataclass(frozen=True)
class TensorSpec:
    """What a rank must have to receive a tensor. Sizes in elements, of the local part.

    `sharding`: what it is a part of (`hpcore.sharding`), empty for a tensor that is whole.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    sharding: str = ""

    @staticmethod
    def of(name: str, tensor: Tensor) -> TensorSpec:
        """The spec of a tensor, which must be dense and in the CPU's memory."""
        local = local_of(tensor)
        sharding = "" if local is tensor else str(Sharding.of(name, tensor))
        dtype = str(tensor.dtype)[6:]
        return TensorSpec(name, dtype, tuple(local.shape), local.stride(), sharding)

    def fits(self, tensor: Tensor | None) -> bool:
        """Whether `tensor` can receive this."""
        if tensor is None:
            return False
        return TensorSpec.of(self.name, tensor) == self and dense(local_of(tensor))

    def make(self) -> Tensor:
        """New memory for it, not initialised."""
        return torch.empty_strided(self.shape, self.stride, dtype=getattr(torch, self.dtype))

    def __str__(self) -> str:
        """The same on all ranks, whatever part of it each holds."""
        if self.sharding:
            whole = Sharding.parse(self.sharding)
            return f"{self.dtype}{list(whole.shape)} sharded {self.sharding}"
        return f"{self.dtype}{list(self.shape)} strides {list(self.stride)}"


def same_layout(one: Tensor, other: Tensor) -> bool:
    """Whether the two can be copied into each other byte by byte, if both are dense."""
    return one.shape == other.shape and one.dtype == other.dtype and one.stride() == other.stride()


def dense(tensor: Tensor) -> bool:
    """Whether the elements fill one range of memory without gaps or overlaps, in whatever order."""
    if tensor.is_contiguous():
        return True
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True


def check_tensor(name: str, tensor: Tensor) -> None:
    """Raises Unsupported, with the name, for a tensor whose memory cannot be sent as it lies."""
    whole, tensor = tensor, local_of(tensor)
    if whole is not tensor:
        Sharding.of(name, whole)
    if tensor.layout is not torch.strided or tensor.is_quantized:
        raise Unsupported(f"{name} is a {tensor.layout} tensor; only dense tensors can be tracked")
    if tensor.device.type != "cpu":
        raise Unsupported(f"{name} is on {tensor.device}; tracked tensors must be on the CPU")
    if not dense(tensor):
        raise Unsupported(
            f"{name} has shape {list(tensor.shape)} and strides {list(tensor.stride())}: not one "
            "range of memory; track a .contiguous() copy"
        )
