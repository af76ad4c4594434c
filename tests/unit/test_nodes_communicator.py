"""Collectives over nodes: sums in one order wherever ranks are. Threads play the ranks."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from hpcore import _core
from hpcore.errors import RosterChanged
from hpcore.membership.roster import Member, Roster
from hpcore.nodes import communicator as module
from hpcore.nodes.communicator import Layout, NodesCommunicator
from hpcore.nodes.mesh import Door, Mesh

pytestmark = pytest.mark.torch
LIMIT_S = 30.0


class Net:
    """`placed[r]`: the node of rank r; `block`: ranks of one node at the start."""

    def __init__(self, placed: list[int], block: int) -> None:
        members = [Member(r, r, r + 1, 1, node) for r, node in enumerate(placed)]
        self.roster = Roster(3, "job", 0, tuple(members), block=block)
        self.over = threading.Event()
        self.doors = [Door("127.0.0.1", b"s" * 32) for _ in placed]
        self.groups = {
            node: _core.SharedGroup.create(placed.count(node), 1 << 20) for node in set(placed)
        }

    def check(self) -> None:
        if self.over.is_set():
            raise RosterChanged("over")

    def join(self, rank: int) -> NodesCommunicator:
        layout = Layout(self.roster, rank)
        group = self.groups[self.roster.members[rank].node]
        local = _core.Communicator.over_group(group, 3, layout.local_rank)
        mesh = None
        if layout.speaks:
            addresses = [self.doors[r].address for r in layout.spokesmen()]
            mesh = Mesh(self.doors[rank], 3, addresses, layout.node, self.check, LIMIT_S)
        return NodesCommunicator(local, layout, mesh, 3)

    def close(self) -> None:
        for door in self.doors:
            door.close()


def addends(ranks: int, elements: int, dtype: torch.dtype) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    made = [torch.randn(elements, generator=generator) for _ in range(ranks)]
    return [(one * 10.0 ** (r - 1)).to(dtype) for r, one in enumerate(made)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("elements", [1, 7, 50_001])
@pytest.mark.parametrize("placed", [[0, 0, 1, 1], [5, 2, 2, 2], [1, 0, 1, 0], [0, 1, 2, 3]])
def test_sum_has_the_bits_of_its_blocks(
    placed: list[int], elements: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PIECE_BYTES", 64 << 10)
    parts = addends(4, elements, dtype)
    expected = (parts[0] + parts[1]) + (parts[2] + parts[3])
    net = Net(placed, block=2)

    def rank_of(rank: int) -> torch.Tensor:
        mine = parts[rank].clone()
        cut = elements // 3
        buffers = [(mine[:cut].data_ptr(), cut), (mine[cut:].data_ptr(), elements - cut)]
        made = net.join(rank)
        made.all_reduce(buffers, str(dtype)[6:], "sum", LIMIT_S)
        texts = made.all_gather_bytes(b"x" * rank, LIMIT_S)
        assert texts == [b"x" * r for r in range(4)]
        root = torch.full((5,), float(rank))
        made.broadcast([(root.data_ptr(), root.nbytes)], 3, LIMIT_S)
        assert root.tolist() == [3.0] * 5
        made.barrier(LIMIT_S)
        made.close()
        return mine

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(rank_of, range(4)))
    net.close()
    for result in results:
        assert torch.equal(result, expected)


def test_wait_for_another_node_ends_with_the_generation() -> None:
    net = Net([0, 1], block=1)
    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(net.join, range(2)))
        value = torch.ones(8)
        waiting = pool.submit(
            made[0].all_reduce, [(value.data_ptr(), 8)], "float32", "sum", LIMIT_S
        )
        net.over.set()
        with pytest.raises(RosterChanged):
            waiting.result(LIMIT_S)
        made[1].close()
        made[0].close()
    with pytest.raises(RosterChanged):  # nor does anybody join
        net.join(1)
    net.close()
