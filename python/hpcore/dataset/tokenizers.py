"""Tokenizers, named by a line of text so that every process of a build can make the same one.

``bytes``; ``tiktoken:NAME`` (tiktoken fetches or has it cached) or ``tiktoken:NAME=FILE`` (its
ranks in FILE); ``tokenizers:FILE`` (a ``tokenizer.json`` of Hugging Face's library) or
``tokenizers:NAME`` (from its hub).
"""

from __future__ import annotations

import base64
import hashlib
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from hpcore.errors import InvalidArgument, NotFound, Unsupported

Tokens = npt.NDArray[np.unsignedinteger[Any]]

_WORDS = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
)
_PATTERNS = {
    "gpt2": r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s""",
    "cl100k_base": r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+|"""
    r""" ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s""",
    "o200k_base": "|".join(
        [*_WORDS, r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n/]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"]
    ),
}
"""How tiktoken's public encodings cut text, for ranks that come from a file."""
_END_OF_TEXT = {"gpt2": 50256, "cl100k_base": 100257, "o200k_base": 199999}


class Tokenizer(Protocol):
    """Turns texts into numbers.

    Attributes:
        name: the line that makes it again.
        fingerprint: differs where the tokens may.
        vocabulary: every token is below.
        end_of_text: the token that ends a document, if it has one.
    """

    name: str
    fingerprint: str
    vocabulary: int
    end_of_text: int | None

    def encode(self, texts: Sequence[bytes]) -> list[Tokens]:
        """The tokens of each text (UTF-8; what is not becomes U+FFFD, but for ``bytes``)."""

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens, for people."""


class Bytes:
    """Every byte is a token."""

    name = "bytes"
    fingerprint = "bytes"
    vocabulary = 256
    end_of_text: int | None = None

    def encode(self, texts: Sequence[bytes]) -> list[Tokens]:
        """Views of the texts."""
        return [np.frombuffer(text, np.uint8) for text in texts]

    def decode(self, tokens: Sequence[int]) -> str:
        """As UTF-8."""
        return bytes(token for token in tokens if token < 256).decode("utf-8", "replace")


class Tiktoken:
    """An encoding of tiktoken."""

    def __init__(self, name: str) -> None:
        tiktoken = library("tiktoken", "tiktoken", "tiktoken")
        self.name = f"tiktoken:{name}"
        encoding, _, file = name.partition("=")
        if file:
            ranks = _read_ranks(Path(file))
            if encoding not in _PATTERNS:
                raise InvalidArgument(
                    f"tokenizer {self.name!r}: a file of ranks needs one of the encodings "
                    f"{', '.join(_PATTERNS)}, whose way of cutting text is known"
                )
            special = {"<|endoftext|>": _END_OF_TEXT[encoding]}
            self._encoding = tiktoken.Encoding(
                encoding,
                pat_str=_PATTERNS[encoding],
                mergeable_ranks=ranks,
                special_tokens=special,
            )
            self.name = f"tiktoken:{encoding}"  # in the dataset: a path says nothing elsewhere
        else:
            self._encoding = tiktoken.get_encoding(encoding)
        self.vocabulary = int(self._encoding.max_token_value) + 1
        self.end_of_text = self._encoding._special_tokens.get("<|endoftext|>")
        known = sorted(self._encoding._mergeable_ranks.items(), key=lambda item: item[1])
        digest = hashlib.sha256(repr((self._encoding._pat_str, known)).encode())
        self.fingerprint = f"{self.name} {digest.hexdigest()}"

    def encode(self, texts: Sequence[bytes]) -> list[Tokens]:
        """Special tokens in a text are text."""
        encode = self._encoding.encode_to_numpy
        return [encode(text.decode("utf-8", "replace"), disallowed_special=()) for text in texts]

    def decode(self, tokens: Sequence[int]) -> str:
        """Tokens that do not end a character become U+FFFD."""
        return str(self._encoding.decode(list(tokens)))


class HuggingFace:
    """A tokenizer of Hugging Face's ``tokenizers``; it adds no special tokens of its own here."""

    def __init__(self, name: str) -> None:
        tokenizers = library("tokenizers", "tokenizers", "tokenizers")
        self.name = f"tokenizers:{name}"
        path = Path(name)
        if path.is_file():
            self._tokenizer = tokenizers.Tokenizer.from_file(name)
            self.name = f"tokenizers:{path.name}"
        elif path.suffix == ".json":
            raise NotFound(f"there is no tokenizer file {name}")
        else:
            self._tokenizer = tokenizers.Tokenizer.from_pretrained(name)
        ids = self._tokenizer.get_vocab(with_added_tokens=True)
        self.vocabulary = max(ids.values()) + 1
        ends = (ids.get(end) for end in ("<|endoftext|>", "</s>", "<|end_of_text|>", "[SEP]"))
        self.end_of_text = next((end for end in ends if end is not None), None)
        digest = hashlib.sha256(self._tokenizer.to_str().encode())
        self.fingerprint = f"{self.name} {digest.hexdigest()}"

    def encode(self, texts: Sequence[bytes]) -> list[Tokens]:
        """One after the other: a build has processes for more."""
        encode = self._tokenizer.encode
        return [
            np.array(encode(text.decode("utf-8", "replace"), add_special_tokens=False).ids, "u4")
            for text in texts
        ]

    def decode(self, tokens: Sequence[int]) -> str:
        """As the library does it."""
        return str(self._tokenizer.decode(list(tokens)))


def make_tokenizer(name: str) -> Tokenizer:
    """The tokenizer of that name. Raises InvalidArgument, NotFound, Unsupported (not installed)."""
    kind, _, rest = name.partition(":")
    if name == "bytes":
        return Bytes()
    if kind == "tiktoken" and rest:
        return Tiktoken(rest)
    if kind == "tokenizers" and rest:
        return HuggingFace(rest)
    raise InvalidArgument(
        f"tokenizer {name!r} is not known: bytes, tiktoken:NAME, tiktoken:NAME=FILE, "
        "tokenizers:FILE or tokenizers:NAME"
    )


def library(module: str, package: str, extra: str) -> Any:
    """An optional library. Raises Unsupported, which names the extra, where it is missing."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise Unsupported(
            f"{package} is not installed ({error}): pip install 'hpcore[{extra}]'"
        ) from error


def _read_ranks(path: Path) -> dict[bytes, int]:
    if not path.is_file():
        raise NotFound(f"there is no file of ranks {path}")
    ranks = {}
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line:
            continue
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token)] = int(rank)
        except ValueError as error:
            raise InvalidArgument(f"{path}, line {number}: not a token and its rank") from error
    return ranks
