"""Which node keeps a second copy of which other node's shadow records. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from hpcore.membership.roster import Node, Roster


@dataclass(frozen=True)
class Keeping:
    """What the keeper of one node is to do: addresses are hexadecimal, as in the roster."""

    ranks: tuple[int, ...]
    """Of this node."""
    kept_by: str
    """The keeper that holds them; '' if there is none."""
    keeps: tuple[tuple[str, tuple[int, ...]], ...]
    """Keepers of other nodes, and whose records of theirs are held here."""


def keeper_of(roster: Roster, number: int) -> Node | None:
    """The next node of another rack, else the next one, that has a keeper; None if there is none
    or the node itself has none to lay its records open.

    Nodes are a ring in the order of their numbers.
    """
    named = {node.number: node for node in roster.nodes}
    own = named.get(number)
    if own is None or not own.keeper:
        return None
    numbers = sorted({member.node for member in roster.members} | set(named))
    later = [n for n in numbers if n > number] + [n for n in numbers if n < number]
    able = [named[n] for n in later if n in named and named[n].keeper]
    elsewhere = (n for n in able if own.rack and n.rack and n.rack != own.rack)
    return next(elsewhere, able[0] if able else None)


def keeping(roster: Roster, number: int) -> Keeping:
    """For the keeper of node `number`."""
    ranks: dict[int, list[int]] = {}
    for member in roster.members:
        ranks.setdefault(member.node, []).append(member.rank)
    named = {node.number: node for node in roster.nodes}
    by = keeper_of(roster, number)
    keeps = []
    for other, held in ranks.items():
        found = keeper_of(roster, other)
        if found is not None and found.number == number:
            keeps.append((named[other].keeper, tuple(held)))
    held_here = tuple(ranks.get(number, ()))
    return Keeping(held_here, by.keeper if by is not None else "", tuple(keeps))
