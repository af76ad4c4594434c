# Generated from the built module by `make stubs`. Not to be edited.
"""
hpcore's c10d store and backend
"""

from __future__ import annotations
import collections.abc
import datetime
import torch._C._distributed_c10d
import torch.distributed.distributed_c10d
import typing
import typing_extensions

__all__: list[str] = ["make_backend", "make_store"]

def make_backend(
    store: torch.distributed.distributed_c10d.Store,
    rank: typing.SupportsInt | typing.SupportsIndex,
    size: typing.SupportsInt | typing.SupportsIndex,
    timeout: datetime.timedelta,
    name: str,
    global_ranks: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
    worker: typing.Any,
    generation: typing.SupportsInt | typing.SupportsIndex,
    rehearsal: bool,
) -> torch._C._distributed_c10d.Backend:
    """
    The hpcore backend of one process group. worker: a Worker's native_handle or None.
    """

def make_store(
    store: typing_extensions.CapsuleType,
    prefix: str,
    timeout: datetime.timedelta,
    worker: typing.Any = None,
    generation: typing.SupportsInt | typing.SupportsIndex = 1,
) -> torch.distributed.distributed_c10d.Store:
    """
    A torch.distributed.Store over a SharedStore's native_handle; its keys begin with prefix. With a Worker's native_handle its waits raise RosterChanged when the generation is over.
    """
