"""Tensors that are not laid out as an allocation is, and a look at what lies beside them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from c10d_reference import Expected

LAYOUTS = ("plain", "offset", "transposed", "strided", "expanded")
Shape = tuple[int, ...]


@dataclass
class Placed:
    """A tensor in a layout; what lies between its elements is zero and must stay so."""

    base: torch.Tensor
    view: torch.Tensor

    def check(self, expected: Expected) -> None:
        expected.check(self.view)
        if 0 not in self.view.stride() or self.view.numel() < 2:
            self.view.copy_(blank(self.view.dtype, tuple(self.view.shape)))
        left = self.base.flatten().view(torch.uint8)
        assert not left.any(), "bytes beside the tensor were written"


def blank(dtype: torch.dtype, shape: Shape) -> torch.Tensor:
    return torch.zeros(math.prod(shape) * dtype.itemsize, dtype=torch.uint8).view(dtype).view(shape)


def place(values: torch.Tensor, layout: str) -> Placed:
    """A tensor with these values in this layout."""
    shape, dtype = tuple(values.shape), values.dtype
    if layout == "expanded" and shape and shape[0] > 1 and is_one_row(values):
        return Placed(blank(dtype, ()), values[:1].expand(shape))
    if layout == "transposed" and shape:
        base = blank(dtype, shape[::-1])
        view = base.permute(*reversed(range(len(shape))))
    elif layout in ("strided", "expanded") and shape:
        base = blank(dtype, (*shape[:-1], 2 * shape[-1] + 1))
        view = base[..., 1::2]
    elif layout == "plain":
        base = view = blank(dtype, shape)
    else:  # not where an allocation begins
        base = blank(dtype, (values.numel() + 5,))
        view = base[3 : 3 + values.numel()].view(shape)
    view.copy_(values)
    return Placed(base, view)


def is_one_row(values: torch.Tensor) -> bool:
    rows = values.contiguous().flatten().view(torch.uint8).view(values.shape[0], -1)
    return torch.equal(rows, rows[:1].expand_as(rows))
