"""Exact mode: gradients whose sum over micro-batches is the same to the bit however they are dealt
to ranks.

The gradient of each micro-batch is a term of its own: it is folded into `_core.ExactSums`, one
float64 for each element, as long as that is exact; the few elements that do not fit are added up as
integers. The sum is rounded once, at the end (docs/elastic.md). One thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hpcore import _core
from hpcore.errors import InvalidArgument, Unsupported
from hpcore.gradients import STEP_TIMEOUT_S, Gradients

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_ELEMENTS_AT_A_TIME = 1 << 18
"""Of those that do not fit: 24 MiB of words."""


class ExactGradients(Gradients):
    """As Gradients, with one exact sum over micro-batches and ranks. Takes 8 more bytes an
    element."""

    exact = True

    def __init__(self) -> None:
        super().__init__()
        self._plane = torch.empty(0, dtype=torch.float64)
        self._at: list[int] = []
        self._held: list[bool] = []
        self._sums: Any = None

    def prepare(self) -> None:
        """Makes room, once all parameters are there. Raises Unsupported, with the name."""
        for name, parameter in zip(self.names, self.parameters, strict=True):
            if parameter.dtype not in DTYPES or parameter.device.type != "cpu":
                raise Unsupported(
                    f"exact=True: {name} is {parameter.dtype} on {parameter.device}; gradients "
                    "are summed exactly for float32, bfloat16 and float16 on the CPU"
                )
        self._at = [0]
        for parameter in self.parameters:
            self._at.append(self._at[-1] + parameter.numel())
        self._plane = torch.empty(self._at[-1], dtype=torch.float64)
        self._held = [False] * len(self.parameters)
        self._sums = _core.ExactSums(self._plane.data_ptr(), self._plane.numel())

    def clear(self) -> None:
        """Drops all gradients and what was summed of them."""
        super().clear()
        self._held = [False] * len(self.parameters)
        if self._sums is not None:
            self._sums.clear()

    def end_micro_batch(self) -> None:
        """Takes the gradients of the micro-batch that has just ended, and leaves none."""
        lists: dict[torch.dtype, list[tuple[int, int, int, bool]]] = {}
        taken: list[Tensor] = []
        for index, parameter in enumerate(self.parameters):
            if parameter.grad is None:
                continue
            gradient = self.lying(index)
            terms = lists.setdefault(gradient.dtype, [])
            first = not self._held[index]
            terms.append((self._at[index], gradient.data_ptr(), gradient.numel(), first))
            self._held[index] = True
            taken.append(gradient)
            parameter.grad = None
        for dtype, terms in lists.items():
            self._sums.fold(terms, str(dtype)[6:])

    def flags(self) -> list[float]:
        """1.0 for each parameter that had a gradient in some micro-batch here, else 0.0.

        Raises InvalidArgument for a gradient that belongs to no micro-batch.
        """
        for name, parameter in zip(self.names, self.parameters, strict=True):
            if parameter.grad is not None:
                raise InvalidArgument(
                    f"exact=True: {name} has a gradient that belongs to no micro-batch: call "
                    "backward() inside `for batch in step.micro_batches()`, once for each batch, "
                    "and run that loop to its end before step.commit"
                )
        return [1.0 if held else 0.0 for held in self._held]

    def unfit(self) -> float:
        """1.0 if some sum does not fit float64 here."""
        return 0.0 if self._sums.all_fit else 1.0

    def reduce(self, communicator: Any, holders: Sequence[float], unfit: float = 0.0) -> None:
        """As Gradients.reduce. `unfit`: on how many ranks some sums do not fit."""
        parts: list[tuple[int, int]] = []
        wanted = [index for index, count in enumerate(holders) if count > 0]
        for index in wanted:
            at, elements = self._at[index], self.parameters[index].numel()
            if not self._held[index]:
                self._sums.zero(at, elements)
            parts.append((self._plane.data_ptr() + 8 * at, elements))
        settled = self._reduce_unfit(communicator) if unfit > 0 else []
        if parts:
            communicator.all_reduce(parts, "float64", "exact_sum", STEP_TIMEOUT_S)
        for unfitting, words in settled:
            self._sums.settle(unfitting.data_ptr(), unfitting.numel(), words.data_ptr())
        targets: dict[torch.dtype, list[tuple[int, int, int, bool]]] = {}
        for index in wanted:
            parameter = self.parameters[index]
            result = torch.empty_like(parameter, memory_format=torch.preserve_format)
            terms = targets.setdefault(result.dtype, [])
            terms.append((self._at[index], result.data_ptr(), result.numel(), False))
            parameter.grad = result
        for dtype, terms in targets.items():
            self._sums.narrow(terms, str(dtype)[6:])

    def _reduce_unfit(self, communicator: Any) -> list[tuple[Tensor, Tensor]]:
        """Elements that do not fit on some rank, with the words of their sums over all ranks."""
        gathered = communicator.all_gather_bytes(self._sums.unfit(), STEP_TIMEOUT_S)
        lists = [torch.frombuffer(bytearray(g), dtype=torch.int64) for g in gathered if g]
        everything = torch.unique(torch.cat(lists)) if lists else torch.empty(0, dtype=torch.int64)
        settled = []
        for elements in everything.split(_ELEMENTS_AT_A_TIME):
            elements = elements.contiguous()
            words = torch.empty(elements.numel() * _core.EXACT_WORDS, dtype=torch.int64)
            self._sums.put_words(elements.data_ptr(), elements.numel(), words.data_ptr())
            where = [(words.data_ptr(), words.numel())]
            communicator.all_reduce(where, "int64", "sum", STEP_TIMEOUT_S)
            settled.append((elements, words))
        return settled
