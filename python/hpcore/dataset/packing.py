"""Documents within the samples of a token stream: masks, positions and targets that stop there.

A stream is documents one after the other, so its samples are packed as full as can be; what is
needed besides are the boundaries. They are computed from the document table when asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hpcore import _core

if TYPE_CHECKING:
    from torch import Tensor

IGNORED = -100
"""What torch's cross_entropy leaves out."""


@dataclass(frozen=True)
class Boundaries:
    """Of a batch of samples of ``sequence`` input tokens each.

    Attributes:
        documents: int32 ``[batch, sequence]``: number of the document within its sample, from 0.
        positions: int32 ``[batch, sequence]``: place of the token within its document, as far as
            the sample shows it, from 0: what a position embedding takes.
        continues: bool ``[batch, sequence]``: whether the next token is of the same document.
    """

    documents: Tensor
    positions: Tensor
    continues: Tensor

    def attention_mask(self, causal: bool = True) -> Tensor:
        """bool ``[batch, 1, sequence, sequence]``, true where attention is allowed: the
        ``attn_mask`` of ``scaled_dot_product_attention``."""
        same = self.documents[:, None, :, None] == self.documents[:, None, None, :]
        return same.tril() if causal else same

    def mask_mod(self, causal: bool = True) -> Callable[[Any, Any, Any, Any], Any]:
        """The ``mask_mod`` of ``torch.nn.attention.flex_attention.create_block_mask``."""
        documents = self.documents

        def allowed(batch: Any, head: Any, query: Any, key: Any) -> Any:
            same = documents[batch, query] == documents[batch, key]
            return same & (query >= key) if causal else same

        return allowed

    def cu_seqlens(self) -> tuple[Tensor, int]:
        """(int32 boundaries of all documents in the batch laid out flat, longest document): what
        variable-length attention takes."""
        import torch

        starts = (self.positions.reshape(-1) == 0).nonzero().reshape(-1).to(torch.int32)
        end = torch.tensor([self.positions.numel()], dtype=torch.int32)
        bounds = torch.cat([starts, end])
        return bounds, int(bounds.diff().max())

    def targets(self, batch: Tensor) -> Tensor:
        """The next tokens of a batch ``[batch, sequence + 1]``, -100 where the document ends: no
        token is predicted from another document. Documents that end with a separator token keep
        it as a target."""
        return batch[:, 1:].masked_fill(~self.continues, IGNORED)


def boundaries(file: Any, field: int, indices: Sequence[int], sequence: int) -> Boundaries:
    """The boundaries within samples of ``sequence`` input tokens and one that is only a target."""
    import torch

    shape = (len(indices), sequence + 1)
    numbers = torch.empty(shape, dtype=torch.int32)
    places = torch.empty(shape, dtype=torch.int32)
    _core.mark_documents(
        *(file, field, indices, sequence, sequence + 1),
        *(numbers.data_ptr(), places.data_ptr()),
    )
    continues = numbers[:, 1:] == numbers[:, :-1]
    return Boundaries(numbers[:, :-1], places[:, :-1], continues)
