"""torchft 0.2: four replica groups of one rank, its lighthouse, and a replacement that heals from a
live replica.

Settings:
* `default`: the lighthouse's defaults (a heartbeat is missed after 5 s), HTTP transport; a
  replacement is started when the death is seen and imports torch anew.
* `best`: heartbeats every 10 ms, missed after 100 ms, a quorum tick of 10 ms, the HTTP transport
  in eight chunks, join timeout 100 ms; the replacement is started anew as before.
* `warm`: as `best`, and the replacement process has imported torch and built the model before the
  kill.
* `hot-spare`: a fifth replica trains along on every step (FIXED_WITH_SPARES) and takes over. It
  costs a rank's compute all the time, and moves no state when a rank is lost.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import common

LIGHTHOUSE = Path(sys.executable).with_name("torchft_lighthouse")
GLOO_TIMEOUT_S = {"default": 5.0, "best": 2.0, "warm": 2.0, "hot-spare": 1.0}
"""5 s is what torchft's own examples set; a heal of 512 MiB must end within it."""
TUNED = ["--heartbeat_timeout_ms", "100", "--quorum_tick_ms", "10", "--join_timeout_ms", "100"]


def manager_of(options: argparse.Namespace, model: Any, optimizer: Any) -> Any:
    """torchft's manager as the setting wants it."""
    import torch.distributed as dist
    from torchft import Manager, ProcessGroupGloo
    from torchft.checkpointing.http_transport import HTTPTransport
    from torchft.manager import WorldSizeMode

    def load(state: dict[str, Any]) -> None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])

    extra: dict[str, Any] = {}
    if options.setting != "default":
        extra["heartbeat_interval"] = timedelta(milliseconds=10)
        extra["checkpoint_transport"] = HTTPTransport(timeout=timedelta(seconds=60), num_chunks=8)
    if options.setting == "hot-spare":
        extra["world_size_mode"] = WorldSizeMode.FIXED_WITH_SPARES
    store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    manager = Manager(
        pg=ProcessGroupGloo(timeout=timedelta(seconds=GLOO_TIMEOUT_S[options.setting])),
        load_state_dict=load,
        state_dict=lambda: {"model": model.state_dict(), "optimizer": optimizer.state_dict()},
        min_replica_size=common.RANKS if options.setting == "hot-spare" else 2,
        replica_id=f"replica_{os.environ['PEER_RANK']}",
        store_addr="localhost",
        store_port=store.port,
        rank=0,
        world_size=1,
        init_sync=False,
        hostname="localhost",
        **extra,
    )
    return manager, store


def worker(options: argparse.Namespace) -> None:
    """One replica: joins the quorum, heals if it must, trains until it is killed."""
    import workload

    rank = int(os.environ["PEER_RANK"])
    events = workload.EventFile(os.environ["PEER_EVENTS"])
    model, optimizer = workload.build(options.state_mib)
    events.write("built", rank=rank)
    if os.environ.get("PEER_WAIT"):
        sys.stdin.readline()
    manager, _store = manager_of(options, model, optimizer)
    while True:
        step = manager.current_step()
        optimizer.zero_grad()
        manager.start_quorum()
        model(workload.batch_of(step, rank)).backward()
        # By hand: the hook of torchft 0.2's DistributedDataParallel asserts once a peer is lost.
        workload.all_reduce_gradients(model, lambda bucket: manager.allreduce(bucket).wait())
        if manager.should_commit():
            optimizer.step()
            model.touch(manager.current_step())
            fields = {"step": manager.current_step(), "quorum": manager._quorum_id}
            events.write("commit", rank=rank, world_size=manager.num_participants(), **fields)


class Replicas:
    """The lighthouse and the replica processes."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.log = (options.run_dir / "log.txt").open("ab")
        port = common.free_port()
        self.address = f"http://localhost:{port}"
        tuned = [] if options.setting == "default" else TUNED
        command = [str(LIGHTHOUSE), "--bind", f"[::]:{port}", "--min_replicas", "2", *tuned]
        self.lighthouse = subprocess.Popen(
            command, stdout=self.log, stderr=self.log, start_new_session=True
        )
        spares = 1 if options.setting == "hot-spare" else 0
        self.processes = {
            rank: self.start(rank, waits=True) for rank in range(common.RANKS + spares)
        }
        self.waiting: subprocess.Popen[bytes] | None = None

    def start(self, rank: int, waits: bool = False) -> subprocess.Popen[bytes]:
        """Starts a replica; one that waits goes on when it reads a line."""
        extra = {"TORCHFT_LIGHTHOUSE": self.address, "PEER_RANK": str(rank)}
        if waits:
            extra["PEER_WAIT"] = "1"
        return subprocess.Popen(
            [sys.executable, *common.worker_command(self.options)],
            env=common.environment(self.options, **extra),
            stdin=subprocess.PIPE,
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
        )

    def let_go(self, events: common.Events) -> None:
        """Lets all go together once each has built its model: the first quorum then has them all,
        and nobody has to heal."""
        waiting = {process.pid for process in self.processes.values()}
        for event in events.wait(lambda e: e["event"] == "built", 120):
            waiting.discard(event["pid"])
            if not waiting:
                break
        for process in self.processes.values():
            _go(process)

    def prepare(self, rank: int, events: common.Events) -> None:
        """Has a warm replacement for `rank` built, if the setting wants one."""
        if self.options.setting == "warm":
            process = self.waiting = self.start(rank, waits=True)
            pid = process.pid
            events.first(lambda e: e["event"] == "built" and e["pid"] == pid, 120)

    def replace(self, rank: int) -> None:
        """Starts a replacement, or lets the warm one go."""
        self.processes[rank].wait()
        if self.waiting is not None and self.waiting.stdin is not None:
            self.processes[rank], self.waiting = self.waiting, None
            _go(self.processes[rank])
        else:
            self.processes[rank] = self.start(rank)

    def close(self, events: common.Events) -> None:
        """Ends everything."""
        waiting = [self.waiting] if self.waiting else []
        common.end([*self.processes.values(), *waiting, self.lighthouse], events)


def _go(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.write(b"go\n")
    process.stdin.flush()


def full(event: dict[str, Any]) -> bool:
    """Whether this is a commit at full strength."""
    return event["event"] == "commit" and event["world_size"] == common.RANKS


def attempt(
    options: argparse.Namespace, replicas: Replicas, events: common.Events, rng: random.Random
) -> bool:
    """One kill; False if nobody came back at full strength."""
    alive = set(replicas.processes)
    seen: set[int] = set()
    for event in events.wait(full, 120):
        seen.add(event["rank"])
        if seen == alive:
            break
    else:
        raise SystemExit("torchft: not all replicas train within 120 s")
    victim = options.victim if options.victim >= 0 else rng.randrange(1, common.RANKS)
    replicas.prepare(victim, events)
    commits = list(events.wait(full, 1.0))
    step_s = common.step_time_s(commits)
    quorum = max(event["quorum"] for event in commits)
    at = common.kill(replicas.processes[victim].pid, step_s, rng)
    replicas.replace(victim)
    survivors_s = None
    for event in events.wait(
        lambda e: e["event"] == "commit" and e["quorum"] > quorum, options.give_up
    ):
        taken = (event["ns"] - at) / 1e9 - step_s
        if event["world_size"] == common.RANKS:
            fields = {"kill_to_commit_s": taken, "survivors_s": survivors_s, "step_s": step_s}
            common.report("torchft", options, victim=victim, **fields)
            return True
        survivors_s = survivors_s or taken
    failure = f"no step at full strength within {options.give_up:.0f} s"
    common.report("torchft", options, victim=victim, kill_to_commit_s=None, failure=failure)
    return False


def main() -> None:
    """Kills one replica after the other."""
    options = common.arguments("torchft", ["default", "best", "warm", "hot-spare"])
    if options.worker:
        worker(options)
        return
    options.run_dir.mkdir(parents=True, exist_ok=True)
    events = common.Events(options.run_dir / "events.jsonl")
    rng = random.Random(options.seed)
    replicas = Replicas(options)
    replicas.let_go(events)
    try:
        for _ in range(options.kills):
            if not attempt(options, replicas, events, rng):
                replicas.close(events)
                replicas = Replicas(options)
                replicas.let_go(events)
            time.sleep(0.5)
    finally:
        replicas.close(events)


if __name__ == "__main__":
    main()
