"""Slots over several nodes. Pure.

A *place* is `node * 64 + slot`: a slot itself in a job on one node (number 0), unique in the job.
On its own notice board each node shows the roster as it looks from there: its own members under
their slots, all others above 63.
"""

from __future__ import annotations

from dataclasses import replace

from hpcore.membership.roster import Roster

SLOTS = 64


def place_of(node: int, slot: int) -> int:
    """The place of a node's slot."""
    return node * SLOTS + slot


def node_of(place: int) -> int:
    """The node that a place is on."""
    return place // SLOTS


def slot_of(place: int) -> int:
    """The slot within its node."""
    return place % SLOTS


def localise(roster: Roster, node: int) -> Roster:
    """The roster as `node` shows it to its workers: its places and node 0's change hands."""

    def seen(place: int) -> int:
        there = node_of(place)
        shown = 0 if there == node else node if there == 0 else there
        return place_of(shown, slot_of(place))

    return replace(
        roster,
        members=tuple(replace(m, slot=seen(m.slot)) for m in roster.members),
        receivers=tuple(seen(place) for place in roster.receivers),
        sources=tuple(seen(place) for place in roster.sources),
    )


def slots_here(roster: Roster) -> list[int]:
    """Of a localised roster: the node's own slots, by rank."""
    return [slot for slot in roster.slots if slot < SLOTS]
