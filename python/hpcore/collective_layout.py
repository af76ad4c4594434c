"""State as the `collective` transport cuts it: chunks of a byte range that runs through all
tensors, and the messages that a chunk is. Both sides work it out alike, from the tensors' sizes.

A chunk that lies in few pieces goes as one message a piece, straight from tensor to tensor; one of
many small pieces is packed into one message.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from hpcore import _core
from hpcore.errors import InvalidArgument

if TYPE_CHECKING:
    from torch import Tensor

MOST_MESSAGES = 4
"""Of a chunk; in more pieces than that it is packed."""

ENTRY_BYTES = 16


class ByteRange:
    """The bytes of tensors, one after the other. Tensors must be dense; they are not copied."""

    def __init__(self, tensors: Sequence[Tensor], chunk_bytes: int) -> None:
        import torch

        if chunk_bytes < 1:
            raise InvalidArgument(f"chunk_bytes={chunk_bytes}: it must be at least 1")
        self.views: list[Tensor] = []
        for number, tensor in enumerate(tensors):
            if not tensor.is_contiguous():
                raise InvalidArgument(f"tensor {number} is not contiguous: send a dense one")
            self.views.append(tensor.detach().reshape(-1).view(torch.uint8))
        self.sizes = [view.numel() for view in self.views]
        self._ends = list(accumulate(self.sizes))
        self.total = self._ends[-1] if self._ends else 0
        self.chunk_bytes = chunk_bytes
        self.chunks = -(-self.total // chunk_bytes)

    def pieces(self, chunk: int) -> list[Tensor]:
        """The views that make up a chunk, in order."""
        at = chunk * self.chunk_bytes
        end = min(at + self.chunk_bytes, self.total)
        found = []
        index = bisect_right(self._ends, at)
        while at < end:
            start = self._ends[index] - self.sizes[index]
            length = min(end, self._ends[index]) - at
            if length:
                found.append(self.views[index][at - start : at - start + length])
            at += length
            index += 1
        return found

    def messages(self, chunk: int) -> list[Tensor]:
        """Buffers for a chunk's messages: the pieces themselves, or one to pack them into."""
        import torch

        pieces = self.pieces(chunk)
        if len(pieces) <= MOST_MESSAGES:
            return pieces
        size = sum(piece.numel() for piece in pieces)
        return [torch.empty(size, dtype=torch.uint8, device=pieces[0].device)]

    def pack(self, chunk: int, messages: list[Tensor]) -> None:
        """Before sending."""
        self._move(chunk, messages, pack=True)

    def unpack(self, chunk: int, messages: list[Tensor]) -> None:
        """After receiving."""
        self._move(chunk, messages, pack=False)

    def _move(self, chunk: int, messages: list[Tensor], *, pack: bool) -> None:
        pieces = self.pieces(chunk)
        if len(pieces) <= MOST_MESSAGES:
            return
        at = 0
        for piece in pieces:
            part = messages[0][at : at + piece.numel()]
            (part if pack else piece).copy_(piece if pack else part)
            at += piece.numel()

    def digest(self, chunk: int) -> bytes:
        """Of what lies in the tensors: 16 bytes over the digests of the pieces. Device memory goes
        through the host."""
        found = [_core.digest128(piece.cpu().numpy().data) for piece in self.pieces(chunk)]
        return bytes(found[0] if len(found) == 1 else _core.digest128(b"".join(found)))
