"""Why a job stops, in words that name who, what and the way out. Pure."""

from __future__ import annotations

from hpcore.membership.facts import name_of
from hpcore.membership.state import Cluster, Policy, Stop
from hpcore.membership.succession import spares, vacancies


def late(behind: list[int], asking: list[int], policy: Policy) -> str:
    """Ranks that keep the others from starting."""
    names = ", ".join(f"rank {rank}" for rank in behind)
    return (
        f"{names} did not reach the first step within {policy.deadline_ns / 1e9:.1f} s after "
        f"rank {asking[0]} had: see its log (rank{behind[0]}); "
        "a start that takes longer needs a higher --recovery-deadline"
    )


def hopeless(cluster: Cluster, policy: Policy) -> Stop | None:
    """The stop of a job whose rank dies again and again before its first step, or None."""
    if max(cluster.step_failures.values(), default=0) < policy.failure_limit:
        return None
    return failing(cluster, policy)


def failing(cluster: Cluster, policy: Policy) -> Stop:
    """The stop of a job whose replacements do not come up."""
    reason = f"{missing(cluster)}; {failing_starts(cluster, policy)}"
    return Stop(cluster.lost_code or 1, reason, cluster.start_error)


def state_lost(cluster: Cluster, steps: int) -> Stop:
    """The stop of a job whose state nobody holds any more."""
    causes = "; ".join(dict.fromkeys(cause.reason for cause in cluster.causes))
    reason = (
        f"{causes}: no member is left that holds the state of step {steps} whole; "
        "go on from your last checkpoint"
    )
    return Stop(cluster.lost_code or 1, reason)


def missing(cluster: Cluster) -> str:
    """'rank 2 was lost'."""
    names = ", ".join(f"rank {member.rank}" for member in vacancies(cluster)) or "a rank"
    return f"{names} was lost"


def on_the_way(cluster: Cluster) -> str:
    """How far the spares are."""
    spare = [f"{name_of(cluster, w)} is {w.stage.name}" for w in spares(cluster)]
    return ", ".join(spare) or "there is no standby"


def failing_starts(cluster: Cluster, policy: Policy) -> str:
    """What became of the last starts."""
    lines = cluster.start_error.strip().splitlines()
    last = f" (the last one: {lines[-1]})" if lines else ""
    return f"workers died before their first step {policy.failure_limit} times in a row{last}"
