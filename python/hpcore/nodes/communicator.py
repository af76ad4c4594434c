"""Collectives of a generation over several nodes: shared memory within a node; between nodes one
spokesman of each speaks with the others'.

Sums have the same bits wherever ranks are: each *block* (the ranks that were one node's as the job
began) is summed in rank order, then the blocks in theirs. Where a node holds one whole block, that
is a native reduction; else its ranks' addends go to the spokesman, or to the other nodes, one by
one. Training thread only.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hpcore.errors import Unsupported
from hpcore.membership.roster import Roster
from hpcore.nodes.mesh import Mesh, View

PIECE_BYTES = 16 << 20
"""What is summed at a time: so much memory for each node, at most."""

Buffers = Sequence[tuple[int, int]]


class Layout:
    """Who is where in a roster, by rank. Pure."""

    def __init__(self, roster: Roster, rank: int) -> None:
        nodes = [member.node for member in roster.members]
        self.nodes = sorted(set(nodes), key=nodes.index)
        self.ranks = [[r for r, n in enumerate(nodes) if n == node] for node in self.nodes]
        self.node = self.nodes.index(nodes[rank])
        self.here = self.ranks[self.node]
        self.rank = rank
        self.local_rank = self.here.index(rank)
        self.speaks = self.local_rank == 0
        block = max(1, roster.block)
        size = len(nodes)
        self.blocks = [
            list(range(first, min(size, first + block))) for first in range(0, size, block)
        ]
        self.regular = all(ranks in self.blocks for ranks in self.ranks)

    def spokesmen(self) -> list[int]:
        """The rank that speaks for each node."""
        return [ranks[0] for ranks in self.ranks]

    def node_index(self, rank: int) -> int:
        """Which of `nodes` a rank is on."""
        return next(i for i, ranks in enumerate(self.ranks) if rank in ranks)


class NodesCommunicator:
    """What a Job uses of a communicator. `local`: of this node's ranks; `mesh`: the spokesman's."""

    def __init__(self, local: Any, layout: Layout, mesh: Mesh | None, generation: int) -> None:
        self.rank = layout.rank
        self.world_size = sum(len(ranks) for ranks in layout.ranks)
        self.generation = generation
        self.speaks = layout.speaks
        self._local = local
        self._layout = layout
        self._mesh = mesh

    def all_reduce(
        self, buffers: Buffers, dtype: str, op: str, timeout_s: float, factor: float = 1.0
    ) -> None:
        """In place. Only sums. Raises RosterChanged, Unsupported."""
        if op != "sum" or factor != 1.0:
            raise Unsupported(f"all_reduce({op!r}) over several nodes: only sums are formed")
        kind = getattr(torch, dtype)
        nbytes = [(address, count * kind.itemsize) for address, count in buffers]
        if self._layout.regular:
            self._local.reduce(buffers, dtype, "sum", 0, timeout_s)
            if self._mesh is not None:
                total = sum(size for _, size in nbytes)
                for low in range(0, total, PIECE_BYTES):
                    self._sum(
                        self._mesh, nbytes, low, min(total, low + PIECE_BYTES), kind, timeout_s
                    )
        else:
            self._sum_one_by_one(nbytes, kind, timeout_s)
        self._local.broadcast(nbytes, 0, timeout_s)

    def _sum(
        self, mesh: Mesh, buffers: Buffers, low: int, high: int, kind: torch.dtype, timeout_s: float
    ) -> None:
        """Bytes low..high: each node sums its share of them, and sends it to the others."""
        layout, count = self._layout, mesh.count
        unit = kind.itemsize
        items = (high - low) // unit
        edges = [low + items * n // count * unit for n in range(count + 1)]
        share = [views(buffers, edges[n], edges[n + 1]) for n in range(count)]
        others = [n for n in range(count) if n != mesh.index]
        size = edges[mesh.index + 1] - edges[mesh.index]
        came = {n: torch.empty(size // unit, dtype=kind) for n in others}
        mesh.exchange(
            {n: list(share[n]) for n in others},
            {n: [view_of(tensor)] for n, tensor in came.items()},
            timeout_s,
        )
        own = torch.empty(size // unit, dtype=kind)
        _copy([view_of(own)], share[mesh.index])
        addends = {**came, mesh.index: own}
        order = [layout.ranks.index(block) for block in layout.blocks]
        total = addends[order[0]].clone()
        for node in order[1:]:
            total += addends[node]
        result = view_of(total)
        _copy(share[mesh.index], [result])
        mesh.exchange({n: [result] for n in others}, {n: list(share[n]) for n in others}, timeout_s)

    def _sum_one_by_one(self, buffers: Buffers, kind: torch.dtype, timeout_s: float) -> None:
        """A node that holds parts of blocks: all ranks' addends go to all nodes."""
        layout = self._layout
        total = sum(size for _, size in buffers)
        own = torch.empty(total // kind.itemsize, dtype=kind)
        _copy([view_of(own)], views(buffers, 0, total))
        addends = {r: own for r in layout.here if r == layout.rank}
        if layout.speaks:
            addends |= {r: torch.empty_like(own) for r in layout.here[1:]}
        if len(layout.here) > 1 and total:
            outputs = [(addends[r].data_ptr(), total) for r in layout.here] if layout.speaks else []
            self._local.gather((own.data_ptr(), total), outputs, "uint8", 0, timeout_s)
        if self._mesh is None:
            return
        others = [n for n in range(self._mesh.count) if n != self._mesh.index]
        for n in others:
            addends |= {r: torch.empty_like(own) for r in layout.ranks[n]}
        mine = [view_of(addends[r]) for r in layout.here]
        self._mesh.exchange(
            {n: list(mine) for n in others},
            {n: [view_of(addends[r]) for r in layout.ranks[n]] for n in others},
            timeout_s,
        )
        sums = []
        for block in layout.blocks:
            part = addends[block[0]].clone()
            for rank in block[1:]:
                part += addends[rank]
            sums.append(part)
        for part in sums[1:]:
            sums[0] += part
        _copy(views(buffers, 0, total), [view_of(sums[0])])

    def broadcast(self, buffers: Buffers, root: int, timeout_s: float) -> None:
        """(address, bytes) from rank `root`. Raises RosterChanged."""
        layout = self._layout
        source = layout.node_index(root)
        if source == layout.node:
            self._local.broadcast(buffers, layout.here.index(root), timeout_s)
        if self._mesh is not None:
            whole = views(buffers, 0, sum(size for _, size in buffers))
            others = [n for n in range(self._mesh.count) if n != source]
            if source == layout.node:
                self._mesh.exchange({n: list(whole) for n in others}, {}, timeout_s)
            else:
                self._mesh.exchange({}, {source: list(whole)}, timeout_s)
        if source != layout.node:
            self._local.broadcast(buffers, 0, timeout_s)

    def barrier(self, timeout_s: float) -> None:
        """Returns when all ranks have called it. Raises RosterChanged."""
        self._local.barrier(timeout_s)
        if self._mesh is not None:
            self._mesh.agree(b"barrier", "barrier", timeout_s)
        self._local.barrier(timeout_s)

    def all_gather_bytes(self, data: bytes, timeout_s: float) -> list[bytes]:
        """Each rank's data, of any size, in rank order. Raises RosterChanged."""
        told = self._local.all_gather_bytes(data, timeout_s)
        packed = b""
        if self._mesh is not None:
            by_node = self._mesh.gather(pack(told), timeout_s)
            by_rank = {
                rank: piece
                for ranks, text in zip(self._layout.ranks, by_node, strict=True)
                for rank, piece in zip(ranks, unpack(text), strict=True)
            }
            packed = pack([by_rank[rank] for rank in range(self.world_size)])
        return unpack(self._local.all_gather_bytes(packed, timeout_s)[0])

    def ready_everywhere(self, generation: int, steps: int, timeout_s: float) -> None:
        """The spokesmen tell each other that all ranks of their nodes are ready for so many steps.
        Raises RosterChanged."""
        assert self._mesh is not None
        value = generation.to_bytes(8, "big") + steps.to_bytes(8, "big")
        self._mesh.agree(value, f"ready for step {steps - 1}", timeout_s)

    def abort(self) -> None:
        """Ends the operation under way on this node."""
        self._local.abort()

    def close(self) -> None:
        """Twice is fine."""
        self._local.close()
        if self._mesh is not None:
            self._mesh.close()


def views(buffers: Buffers, low: int, high: int) -> list[View]:
    """Bytes low..high of a list of (address, bytes) that is one range."""
    found = []
    start = 0
    for address, size in buffers:
        first, last = max(low, start), min(high, start + size)
        if first < last:
            found.append(_view(address + first - start, last - first))
        start += size
    return found


def _view(address: int, nbytes: int) -> View:
    return View((ctypes.c_char * nbytes).from_address(address)).cast("B")


def view_of(tensor: Tensor) -> View:
    """The bytes of a dense tensor."""
    return _view(tensor.data_ptr(), tensor.nbytes) if tensor.nbytes else View(b"")


def _copy(into: list[View], out_of: list[View]) -> None:
    """One of both is a single view."""
    at = 0
    if len(into) == 1:
        for view in out_of:
            into[0][at : at + view.nbytes] = view
            at += view.nbytes
        return
    for view in into:
        view[:] = out_of[0][at : at + view.nbytes]
        at += view.nbytes


def pack(texts: Sequence[bytes]) -> bytes:
    """Strings as one, with their lengths."""
    return b"".join(len(text).to_bytes(8, "big") + text for text in texts)


def unpack(data: bytes) -> list[bytes]:
    """The inverse of `pack`."""
    found = []
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 8], "big")
        found.append(data[at + 8 : at + 8 + size])
        at += 8 + size
    return found
