"""A test double of two nodes within one agent: `hpcore run`, with slots dealt to node 0 and 1 in
turn, a shadow memory and a keeper for each. SIGUSR1 takes node 0 away: its ranks are killed, its
memory is emptied, its keeper is gone.

usage: python two_nodes.py run [options of hpcore run] SCRIPT...
"""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from typing import Any

from hpcore.agent import parts as agent_parts
from hpcore.agent.agent import Agent
from hpcore.agent.keeping import ShadowKeeper
from hpcore.agent.registrar import Registrar
from hpcore.agent.shadow_memory import MOST_RANKS, REGION_BYTES, make_memory
from hpcore.cli.main import main
from hpcore.membership.roster import Node, Roster

NODES = 2


class Nodes:
    """The memories and keepers; all in the agent's main thread."""

    def __init__(self) -> None:
        self.memories = [make_memory() for _ in range(NODES)]
        self.keepers = [ShadowKeeper(fd, dict(os.environ)) for fd in self.memories]
        for keeper in self.keepers:
            assert keeper.wait_address(20), keeper.why
        self.roster: Roster | None = None

    def place(self, roster: Roster) -> Roster:
        """The roster, with nodes; the keepers follow it."""
        for keeper in self.keepers:
            keeper.events()
        members = tuple(replace(m, node=m.slot % NODES) for m in roster.members)
        nodes = tuple(
            Node(n, f"host{n}", keeper=keeper.address or "")
            for n, keeper in enumerate(self.keepers)
        )
        self.roster = replace(roster, members=members, nodes=nodes)
        for number, keeper in enumerate(self.keepers):
            keeper.follow(self.roster, number)
        return self.roster

    def lose(self, *_: Any) -> None:
        """Node 0 is gone."""
        assert self.roster is not None
        for member in self.roster.members:
            if member.node == 0:
                os.kill(member.pid, signal.SIGKILL)
        os.kill(self.keepers[0].pid, signal.SIGKILL)
        os.ftruncate(self.memories[0], 0)
        os.ftruncate(self.memories[0], MOST_RANKS * REGION_BYTES)
        self.keepers[0].close()
        self.keepers[0].address = ""

    def close(self) -> None:
        for keeper in self.keepers:
            keeper.close()


def install() -> None:
    """Puts two nodes into every agent of this process."""
    assemble, publish, run = agent_parts.assemble, Registrar._publish, Agent.run
    made: list[Nodes] = []

    def assembled(*arguments: Any) -> Any:
        made.append(nodes := Nodes())
        signal.signal(signal.SIGUSR1, nodes.lose)
        parts = assemble(*arguments)
        for number, memory in enumerate(nodes.memories):
            parts.segment.store.set(f"shadow-node{number}", str(memory))
        return parts

    def published(self: Registrar, roster: Roster) -> int:
        placed = made[-1].place(roster)
        self.cluster = replace(self.cluster, roster=placed)
        return publish(self, placed)

    def ran(self: Agent) -> int:
        try:
            return run(self)
        finally:
            for nodes in made:
                nodes.close()

    import hpcore.agent.agent

    hpcore.agent.agent.assemble = assembled  # type: ignore[attr-defined]
    Registrar._publish = published  # type: ignore[method-assign]
    Agent.run = ran  # type: ignore[method-assign]


if __name__ == "__main__":
    install()
    main()
