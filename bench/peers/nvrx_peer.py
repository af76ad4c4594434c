"""nvidia-resiliency-ext: in-process restart with four active ranks and one reserve.

The wrapped function is entered again in the survivors and in the reserve; a lost process is not
replaced, so each kill has a launch of its own. Survivors may be a step apart, so all ranks read the
state back from a checkpoint, which was written once into the run folder (page cache in practice).

Settings:
* `default`: the wrapper's default intervals (1 s).
* `best`: all intervals 50 ms, no wait for further reports, ranks sleep until they are restarted.
"""

from __future__ import annotations

import argparse
import datetime
import os
import random
import subprocess
import sys
import time
from typing import Any

import common

RESERVES = 1


def wrapper(options: argparse.Namespace) -> Any:
    """The restart wrapper as the setting wants it; its store is on a port of its own."""
    from nvidia_resiliency_ext import inprocess

    assignment = inprocess.rank_assignment
    extra: dict[str, Any] = {}
    if options.setting == "best":
        short = datetime.timedelta(milliseconds=50)
        for name in ("monitor_thread", "monitor_process", "heartbeat", "progress_watchdog"):
            extra[f"{name}_interval"] = short
        extra["last_call_wait"] = datetime.timedelta(0)
    return inprocess.Wrapper(
        store_kwargs={"port": int(os.environ["MASTER_PORT"]) + 1},
        rank_assignment=inprocess.Compose(
            assignment.MaxActiveWorldSize(common.RANKS), assignment.ShiftRanks()
        ),
        **extra,
    )


def worker(options: argparse.Namespace) -> None:
    """One process: active or reserve, as the wrapper says."""
    import torch
    import torch.distributed as dist
    import workload
    from nvidia_resiliency_ext.inprocess import CallWrapper

    events = workload.EventFile(os.environ["PEER_EVENTS"])
    events.write("start")
    first = os.environ["RANK"] == "0"
    port = int(os.environ["MASTER_PORT"])
    base = dist.TCPStore("localhost", port, is_master=first, multi_tenant=True)
    model, optimizer = workload.build(options.state_mib)
    path = options.run_dir / "state.pt"

    def steps(rank: int, size: int, step: int, call_wrapper: CallWrapper) -> None:
        iteration = call_wrapper.iteration
        while True:
            optimizer.zero_grad()
            model(workload.batch_of(step, rank)).backward()
            workload.all_reduce_gradients(model, dist.all_reduce)
            optimizer.step()
            model.touch(step)
            step += 1
            events.write("commit", rank=rank, step=step, world_size=size, iteration=iteration)
            call_wrapper.ping()
            if step == 5 and rank == 0 and not path.exists():
                held = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
                torch.save({**held, "step": step}, path.with_suffix(".part"))
                path.with_suffix(".part").rename(path)

    def train(call_wrapper: CallWrapper | None = None) -> None:
        assert call_wrapper is not None
        iteration = call_wrapper.iteration
        store = dist.PrefixStore(str(iteration), base)
        rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        events.write("enter", rank=rank, iteration=iteration)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=size)
        step = 0
        if iteration:
            state = torch.load(path, mmap=True, weights_only=True)
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            step = state["step"]
        events.write("ready", rank=rank, iteration=iteration)
        failure = ""
        try:
            steps(rank, size, step, call_wrapper)
        except RuntimeError as error:
            failure = str(error)
        # The package aborts NCCL only. Gloo's connections close when the last reference to the
        # group is gone, those of a traceback too: only then do the other ranks leave all_reduce.
        dist.destroy_process_group()
        while options.setting == "best":  # until the wrapper restarts this rank: a rank that raises
            time.sleep(0.001)  # spins in the wrapper, and four of them fill two cores for seconds
        raise RuntimeError(failure)

    train.__annotations__["call_wrapper"] = CallWrapper  # NVRx wants the class, not its name
    wrapper(options)(train)()


def launch(options: argparse.Namespace, log: Any) -> list[subprocess.Popen[bytes]]:
    """Four ranks and the reserve."""
    port = common.free_port()
    size = common.RANKS + RESERVES
    processes = []
    for rank in range(size):
        place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
        env = common.environment(options, MASTER_ADDR="localhost", MASTER_PORT=str(port), **place)
        command = [sys.executable, *common.worker_command(options)]
        processes.append(
            subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
        )
    return processes


def attempt(options: argparse.Namespace, log: Any, rng: random.Random) -> None:
    """One launch, one kill."""
    for name in ("events.jsonl", "state.pt"):
        (options.run_dir / name).unlink(missing_ok=True)
    events = common.Events(options.run_dir / "events.jsonl")
    processes = launch(options, log)
    try:
        ready = (options.run_dir / "state.pt").exists
        if not events.first(lambda e: ready() and e["event"] == "commit", 120):
            raise SystemExit("nvrx: no step within 120 s")
        commits = list(events.wait(lambda e: e["event"] == "commit", 2.0))
        step_s = common.step_time_s(commits)
        victim = options.victim if options.victim >= 0 else rng.randrange(1, common.RANKS)
        pid = next(e["pid"] for e in commits if e["rank"] == victim)
        at = common.kill(pid, step_s, rng)
        seen: set[int] = set()
        again = events.wait(lambda e: e["event"] == "commit" and e["iteration"], options.give_up)
        for event in again:
            seen.add(event["rank"])
            if len(seen) == common.RANKS == event["world_size"]:
                taken = (event["ns"] - at) / 1e9 - step_s
                fields = {"kill_to_commit_s": taken, "step_s": step_s}
                common.report("nvrx", options, victim=victim, **fields)
                return
        failure = f"no step within {options.give_up:.0f} s"
        common.report("nvrx", options, victim=victim, kill_to_commit_s=None, failure=failure)
    finally:
        common.end(processes, events)


def main() -> None:
    """Kills one rank a launch."""
    options = common.arguments("nvidia-resiliency-ext", ["default", "best"])
    if options.worker:
        worker(options)
        return
    options.run_dir.mkdir(parents=True, exist_ok=True)
    rng = random.Random(options.seed)
    with (options.run_dir / "log.txt").open("ab") as log:
        for _ in range(options.kills):
            attempt(options, log, rng)


if __name__ == "__main__":
    main()
