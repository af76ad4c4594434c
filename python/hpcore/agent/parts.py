"""The parts of a running agent: made together, closed together.

One thread makes and closes them; who may call what is said by each part.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hpcore.agent import data_cache
from hpcore.agent.environment import JobEnvironment, free_port, template_environment
from hpcore.agent.forge import Forge
from hpcore.agent.joining import enrol, registrar_of
from hpcore.agent.journal import Journal
from hpcore.agent.keeping import KeeperDesk
from hpcore.agent.logs import LogRelay
from hpcore.agent.memory import mem_available_bytes
from hpcore.agent.node_registrar import NodeParts
from hpcore.agent.options import AgentOptions, default_preload
from hpcore.agent.registrar import Registrar
from hpcore.agent.shadow_memory import STORE_KEY, make_memory
from hpcore.agent.supervision import Supervisor
from hpcore.agent.workers import WorkerTable
from hpcore.membership.rosters import LocalRosters
from hpcore.membership.state import Cluster, Policy

if TYPE_CHECKING:
    from hpcore import _core

STDOUT = 1


@dataclass(frozen=True)
class Parts:
    """Everything that one job's agent works with."""

    options: AgentOptions
    segment: _core.NodeSegment
    watch: _core.AgentWatch
    forge: Forge
    relay: LogRelay
    journal: Journal
    table: WorkerTable
    supervisor: Supervisor
    registrar: Registrar
    keepers: KeeperDesk | None
    """Of a job on several nodes: other nodes keep what ranks here copy, and the other way round."""
    shadow_fd: int
    """Memory for shadow copies: of a region for each rank, no page used before a worker writes."""
    data_cache: _core.NodeCache
    """Results of `dataset.map(..., cache="node")`; no page used before a worker writes."""

    def close(self) -> None:
        """Ends threads, closes descriptors; all workers must have been reaped."""
        self.registrar.close()
        if self.keepers is not None:
            self.keepers.close()
        self.relay.close()
        self.journal.close()
        self.watch.close()
        self.table.close()
        self.forge.close()
        self.segment.close()
        os.close(self.shadow_fd)


def assemble(
    options: AgentOptions, log_dir: str, job: str, wake: Callable[[], None] = lambda: None
) -> Parts:
    """Starts the template and the native watch; no worker yet. Raises OSError if the log directory
    cannot be written; of a job on several nodes also CoordinatorUnavailable, InvalidArgument."""
    from hpcore import _core

    node = enrol(options, options.nodes, wake) if options.nodes is not None else None
    os.makedirs(log_dir, exist_ok=True)
    events, template_log = (os.path.join(log_dir, n) for n in ("events.jsonl", "template.log"))
    for path in (events, template_log):
        with open(path, "wb"):
            pass
    segment = _core.NodeSegment.create(options.slots, options.staging_bytes, options.store_bytes)
    forge = _forge(options, segment.fd, template_log)
    forge.start()
    watch = _core.AgentWatch(segment)
    relay = LogRelay(STDOUT if options.terminal else None)
    environment = JobEnvironment(
        job=job,
        nproc=options.nproc,
        port=free_port(),
        segment_fd=segment.fd,
        log_dir=log_dir,
        faults=options.faults,
        recovery_deadline_s=options.recovery_deadline_s,
        max_restarts=options.max_restarts or 0,
        agent_pid=os.getpid(),
    )
    shadow_fd = make_memory()
    segment.store.set(STORE_KEY, str(shadow_fd))
    cache = data_cache.make_data_cache(mem_available_bytes())
    segment.store.set(data_cache.STORE_KEY, str(cache.fd))
    first = 1 if node is None else (node.enrolment.number << 32) + 1
    table = WorkerTable(segment, watch, forge, relay, environment, first)
    keepers = None
    if node is not None:
        env = template_environment(options.env)
        keepers = KeeperDesk(segment.store, shadow_fd, env, node.enrolment.number)
    return Parts(
        options=options,
        segment=segment,
        watch=watch,
        forge=forge,
        relay=relay,
        journal=Journal(events, relay, options.on_event),
        table=table,
        supervisor=Supervisor(segment, table, options.recovery_deadline_s),
        registrar=_registrar(options, segment, job, node, keepers),
        keepers=keepers,
        shadow_fd=shadow_fd,
        data_cache=cache,
    )


def _forge(options: AgentOptions, segment_fd: int, log_path: str) -> Forge:
    env = template_environment(options.env)
    return Forge(
        command=options.command,
        module=options.module,
        preload=default_preload(env) if options.preload is None else options.preload,
        env=env,
        segment_fd=segment_fd,
        log_path=log_path,
    )


def _registrar(
    options: AgentOptions,
    segment: _core.NodeSegment,
    job: str,
    node: NodeParts | None,
    keepers: KeeperDesk | None,
) -> Registrar:
    policy = Policy(
        min_ranks=options.min_ranks,
        deadline_ns=int(options.recovery_deadline_s * 1e9),
        max_restarts=options.max_restarts,
    )
    scaling = options.policy
    if scaling is not None:
        policy = replace(
            policy,
            sizes=scaling.allowed,
            settle_ns=int(scaling.settle_s * 1e9),
            standby_wait_ns=int(scaling.standby_wait_s * 1e9),
            snooze_ns=int(scaling.snooze_s * 1e9),
        )
    if node is not None:
        return registrar_of(node, segment, options, policy, keepers)
    cluster = Cluster(job, options.nproc, options.nproc, options.standbys)
    return Registrar(segment, LocalRosters(), cluster, policy)
