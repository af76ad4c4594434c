"""torchrun --max-restarts with a checkpoint on disk: every rank is started anew and reads the state
back.

Settings: `default`: torchrun's defaults (a monitor interval of 0.1 s), DDP over Gloo. `best`: a
monitor interval of 10 ms and a fresh store for each restart (TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1):
with the shared one, restarted ranks now and then find the addresses of the dead in it and hang. The
checkpoint of the state lies in the run folder (page cache in practice) and is written once, before
the first kill: how often it would be written, and the steps that are lost since, are not counted
against torchrun.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import time

import common


def worker(options: argparse.Namespace) -> None:
    """One rank: restores if there is a checkpoint, trains until it is killed."""
    import torch
    import torch.distributed as dist
    import workload

    events = workload.EventFile(os.environ["PEER_EVENTS"])
    events.write("start")
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    model, optimizer = workload.build(options.state_mib)
    checkpoint = options.run_dir / "state.pt"
    step = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, mmap=True, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
    trained = torch.nn.parallel.DistributedDataParallel(model)
    while True:
        optimizer.zero_grad()
        trained(workload.batch_of(step, rank)).backward()
        optimizer.step()
        model.touch(step)
        step += 1
        events.write("commit", rank=rank, step=step, world_size=dist.get_world_size())
        if step == 5 and rank == 0 and not checkpoint.exists():
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
            torch.save(state, checkpoint.with_suffix(".part"))
            checkpoint.with_suffix(".part").rename(checkpoint)


def start(options: argparse.Namespace, log: object) -> subprocess.Popen[bytes]:
    """torchrun with four ranks, in a process group of its own."""
    best = options.setting == "best"
    interval = ["--monitor-interval", "0.01"] if best else []
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(common.RANKS)),
        *("--standalone", "--max-restarts", "1000", *interval),
        *common.worker_command(options),
    ]
    env = common.environment(options)
    if best:
        env["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    return subprocess.Popen(command, env=env, start_new_session=True, stdout=log, stderr=log)  # type: ignore[call-overload]


def main() -> None:
    """Kills one rank after the other."""
    options = common.arguments("torchrun", ["default", "best"])
    if options.worker:
        worker(options)
        return
    options.run_dir.mkdir(parents=True, exist_ok=True)
    events = common.Events(options.run_dir / "events.jsonl")
    rng = random.Random(options.seed)
    log = (options.run_dir / "log.txt").open("wb")
    process = start(options, log)
    try:
        for _ in range(options.kills):
            if not attempt(options, events, rng):
                common.end([process], events)
                process = start(options, log)
    finally:
        common.end([process], events)


def attempt(options: argparse.Namespace, events: common.Events, rng: random.Random) -> bool:
    """One kill; False if nobody came back."""
    ready = (options.run_dir / "state.pt").exists
    if not events.first(lambda e: ready() and e["event"] == "commit", 120):
        raise SystemExit("torchrun: no step within 120 s")
    end = time.monotonic() + 1.0
    commits = list(events.wait(lambda e: e["event"] == "commit", end - time.monotonic()))
    pids = {e["rank"]: e["pid"] for e in commits}
    step_s = common.step_time_s(commits)
    victim = options.victim if options.victim >= 0 else rng.randrange(1, common.RANKS)
    old = set(pids.values())
    at = common.kill(pids[victim], step_s, rng)
    seen: set[int] = set()
    for event in events.wait(
        lambda e: e["event"] == "commit" and e["pid"] not in old, options.give_up
    ):
        seen.add(event["rank"])
        if len(seen) == common.RANKS:
            taken = (event["ns"] - at) / 1e9 - step_s
            common.report("torchrun", options, victim=victim, kill_to_commit_s=taken, step_s=step_s)
            return True
    failure = f"no step within {options.give_up:.0f} s"
    common.report("torchrun", options, victim=victim, kill_to_commit_s=None, failure=failure)
    return False


if __name__ == "__main__":
    main()
