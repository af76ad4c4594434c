"""Starts the workers that a decision asks for, if there is room and memory for them.

One thread.
"""

from __future__ import annotations

import time

from hpcore.agent import memory
from hpcore.agent.journal import Journal
from hpcore.agent.options import AgentOptions
from hpcore.agent.workers import WorkerTable
from hpcore.membership.state import Cluster, Spawn, SpawnFailed, Stop

USAGE_ERROR = 2


class Recruiter:
    """Asks the table for workers; what cannot be had is said at once."""

    def __init__(self, options: AgentOptions, table: WorkerTable, journal: Journal) -> None:
        self._options = options
        self._table = table
        self._journal = journal

    def hire(self, cluster: Cluster, spawns: list[Spawn]) -> tuple[Stop | None, list[SpawnFailed]]:
        """Asks for each worker: (the end of the job, if more standbys were wanted than fit;
        failures).

        Standbys are weighed against the ranks' real size: too many of them stop a job that has just
        begun, and are left out of one that has committed steps.
        """
        standbys = sum(1 for spawn in spawns if spawn.rank is None)
        shortage = self._shortage(cluster, standbys) if standbys else ""
        if shortage:
            roster = cluster.roster
            if roster is not None and roster.generation == 1 and not cluster.committed:
                return Stop(USAGE_ERROR, shortage), []
            self._journal.say(f"no standby is started: {shortage}")
        failures = []
        for spawn in spawns:
            reason = shortage if spawn.rank is None else ""
            if not reason and self._table.spawn(spawn.rank) is None:
                reason = f"all {self._options.slots} slots are taken"
            if reason:
                failures.append(SpawnFailed(time.monotonic_ns(), spawn.rank, reason))
        return None, failures

    def _shortage(self, cluster: Cluster, standbys: int) -> str:
        """Why standbys do not fit beside the ranks; '' if they do, or if one takes a dead rank's
        memory."""
        members = [w for w in cluster.workers.values() if cluster.member(w) is not None]
        if len(members) < cluster.target:
            return ""
        each = max((memory.private_bytes(worker.pid) for worker in members), default=0)
        return memory.standby_shortage(standbys, each, self._options.available_bytes())
