"""Keyed randomness: what a generator is seeded with is a function of (seed, step, rank or
micro-batch).
 Nothing is ever restored: a step that is run again, on another rank or in another process, draws
the same numbers. Runs on the thread that trains.
"""

from __future__ import annotations

import hashlib
import random
import struct
import sys


def key_of(seed: int, kind: str, step: int, index: int) -> int:
    """63 bits that depend on all arguments. `kind` keeps ranks and micro-batches apart."""
    packed = struct.pack("<qqq", seed, step, index)
    digest = hashlib.blake2b(packed, digest_size=8, person=kind.encode()).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seeds Python's, NumPy's and torch's global generators for what a rank does between its
    micro-batches."""
    _seed_all(key_of(seed, "step", step, rank))


def seed_micro_batch(seed: int, step: int, micro_batch: int) -> None:
    """Seeds them for one micro-batch: the same numbers whoever runs it."""
    _seed_all(key_of(seed, "micro-batch", step, micro_batch))


def _seed_all(key: int) -> None:
    import torch

    random.seed(key)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(key & 0xFFFFFFFF)
    torch.default_generator.manual_seed(key)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(key)
