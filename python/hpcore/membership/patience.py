"""Which sizes a world may have, and how long to wait before it is given another one. Pure.

The user's words for it are `hpcore.elastic.Policy`; here are its parts that rosters hang on.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import replace

from hpcore.membership.state import Cluster, Policy


def fit(policy: Policy, ranks: int) -> int:
    """The largest allowed size with so many ranks; 0 if none is."""
    if not policy.sizes:
        return ranks
    at = bisect_right(policy.sizes, ranks)
    return policy.sizes[at - 1] if at else 0


def size_now(cluster: Cluster, policy: Policy, reachable: int, now_ns: int) -> int | None:
    """The size that the next generation can have now, or None if it must wait: for enough ranks,
    or, after a loss, for a standby that may still come."""
    assert cluster.roster is not None
    size = fit(policy, reachable)
    if size >= cluster.target:
        return size
    if size < max(1, policy.min_ranks):
        return None
    since = cluster.vacant_ns if cluster.vacant_ns is not None else now_ns
    smaller = size < min(cluster.target, cluster.roster.world_size)
    if smaller and not cluster.standbys_given_up and now_ns < since + policy.standby_wait_ns:
        return None
    return size


def note_growth(cluster: Cluster, can_grow: bool, now_ns: int) -> Cluster:
    """Remembers since when the world could grow, without a break."""
    if not can_grow:
        return cluster if cluster.growable_ns is None else replace(cluster, growable_ns=None)
    return cluster if cluster.growable_ns is not None else replace(cluster, growable_ns=now_ns)


def may_grow(cluster: Cluster, policy: Policy, reachable: int, now_ns: int) -> bool:
    """Whether those who came have settled, and no growth failed of late. What the user asked for
    is not put off."""
    assert cluster.roster is not None
    if cluster.growable_ns is None or fit(policy, reachable) <= cluster.roster.world_size:
        return False
    if cluster.asked:
        return True
    failed = cluster.growth_failed_ns
    snoozing = failed is not None and now_ns < failed + policy.snooze_ns
    return not snoozing and now_ns >= cluster.growable_ns + policy.settle_ns
