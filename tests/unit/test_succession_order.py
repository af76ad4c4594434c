"""Who takes a free rank: warm workers first, and among them those that were let go."""

from __future__ import annotations

from hpcore.membership.state import Cluster, Stage, WorkerFacts
from hpcore.membership.succession import candidates


def worker(slot: int, stage: Stage, released: bool = False) -> WorkerFacts:
    return WorkerFacts(slot, incarnation=slot + 1, pid=100 + slot, stage=stage, released=released)


def test_candidates_put_ranks_that_were_let_go_before_unused_standbys() -> None:
    workers = [
        worker(1, Stage.WARM),
        worker(2, Stage.TRAINING, released=True),
        worker(3, Stage.WARM, released=True),
        worker(4, Stage.STARTING),
    ]
    cluster = Cluster("job", 4, 4, 1, workers={w.slot: w for w in workers})
    assert [w.slot for w in candidates(cluster)] == [3, 1, 2]
