"""Text -> tokens, in whichever process of a build."""

from __future__ import annotations

from typing import Any

import numpy as np

from hpcore.dataset.pieces import Piece, Texts, as_dtype
from hpcore.dataset.tokenizers import Tokenizer, make_tokenizer


class TextConverter:
    """Tokenises a batch of texts into the pieces of field 0. A document without tokens is left out.

    Args:
        tokenizer: its name, or itself.
        dtype: of the tokens in the file.
        separator: token behind each document; None: none.
    """

    def __init__(
        self, tokenizer: str | Tokenizer, dtype: str, vocabulary: int, separator: int | None
    ) -> None:
        self._tokenizer = make_tokenizer(tokenizer) if isinstance(tokenizer, str) else tokenizer
        self._dtype = dtype
        self._vocabulary = vocabulary
        self._end = None if separator is None else np.array([separator], dtype)

    def __call__(self, payload: Any) -> list[Piece]:
        """A piece, or none."""
        assert isinstance(payload, Texts)
        parts: list[Any] = []
        lengths: list[int] = []
        length = 0
        for tokens, ends in zip(self._tokenizer.encode(payload.texts), payload.ends, strict=True):
            parts.append(tokens)
            length += len(tokens)
            if ends:
                if self._end is not None:
                    parts.append(self._end)
                    length += 1
                lengths.append(length)
                length = 0
        if not parts:
            return []
        joined = parts[0] if len(parts) == 1 else np.concatenate(parts)
        data = as_dtype(joined, self._dtype, self._vocabulary, self._tokenizer.name)
        return [Piece(0, data, np.array(lengths, np.uint64), length)]
