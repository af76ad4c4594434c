"""`init_process_group("hpcore")` without `hpcore run`: any launcher, init method, hosts."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytestmark = [pytest.mark.torch, pytest.mark.timeout(200)]
SCRIPT = str(Path(__file__).parents[1] / "scripts" / "plain_anywhere.py")
TORCHRUN = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", SCRIPT]


def environment(**more: str) -> dict[str, str]:
    plain = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE")}
    return {**plain, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", **more}


def run(arguments: list[str], timeout: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def check_both(output: str, served: str = "hpcore") -> None:
    for rank in range(2):
        assert f"rank {rank} of 2: sum 3.0 [0, 1] by {served}" in output, output


def test_anywhere_under_torchrun_by_default() -> None:
    done = run([*TORCHRUN, "-"])
    assert done.returncode == 0, done.stderr
    check_both(done.stdout)


@pytest.mark.parametrize("method", ["file", "tcp"])
def test_anywhere_spawned_with_any_init_method(tmp_path: Path, method: str) -> None:
    where = f"file://{tmp_path}/store" if method == "file" else f"tcp://127.0.0.1:{free_port()}"
    done = run([SCRIPT, where, "spawn"])
    assert done.returncode == 0, done.stderr
    check_both(done.stdout)


def test_anywhere_a_killed_rank_is_named_without_an_agent(tmp_path: Path) -> None:
    with ranks(f"file://{tmp_path}/store", "die") as processes:
        _, said = processes[0].communicate(timeout=100)
        assert processes[1].wait(timeout=10) == -signal.SIGKILL
    assert "PeerDead: rank 1 of 2 (pid" in said, said


@contextmanager
def ranks(
    where: str, *words: str, command: tuple[str, ...] = ()
) -> Iterator[list[subprocess.Popen[str]]]:
    """Two ranks, started like anybody's: each by itself. Killed at the end."""
    processes = [
        subprocess.Popen(
            [*command, sys.executable, SCRIPT, where, *words],
            env=environment(RANK=str(rank), WORLD_SIZE="2"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        for rank in range(2)
    ]
    try:
        yield processes
    finally:
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            for pipe in (process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()


def shared_memory_of_groups() -> set[str]:
    """Every memfd of a group or a store that some process still has, as pid and name."""
    found = set()
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            with open(f"/proc/{entry.name}/maps") as maps:
                found |= {
                    (entry.name, w) for line in maps for w in line.split() if "memfd:hpcore" in w
                }
        except OSError:
            continue
    return {f"{pid} {name}" for pid, name in found}


def test_anywhere_nothing_is_left_when_all_are_killed(tmp_path: Path) -> None:
    before = shared_memory_of_groups(), set(os.listdir("/dev/shm"))
    with ranks(f"file://{tmp_path}/store", "wait") as processes:
        for rank, process in enumerate(processes):
            assert process.stdout is not None
            assert process.stdout.readline() == f"rank {rank} of 2: sum 3.0 [0, 1] by hpcore\n"
        assert any(str(processes[0].pid) in line for line in shared_memory_of_groups() - before[0])
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()
        assert not [m for m in shared_memory_of_groups() if m.split()[0] in
                    {str(p.pid) for p in processes}]  # fmt: skip
    assert set(os.listdir("/dev/shm")) <= before[1]


def isolates_pids() -> bool:
    unshare = shutil.which("unshare")
    if unshare is None or os.geteuid() != 0:
        return False
    return subprocess.run([unshare, "--fork", "--pid", "--mount-proc", "true"]).returncode == 0


def test_anywhere_ranks_on_different_hosts_use_gloo() -> None:
    """Each rank has a PID namespace: neither opens the other's memory, as on two hosts."""
    if not isolates_pids():
        pytest.skip("needs root and unshare(1) with PID namespaces, to stand for two hosts")
    host = ("unshare", "--fork", "--pid", "--mount-proc", "--kill-child")
    with ranks(f"tcp://127.0.0.1:{free_port()}", command=host) as processes:
        said = [process.communicate(timeout=100) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    check_both(said[0][0] + said[1][0], served="gloo")


def test_anywhere_a_rank_that_never_comes_is_named(tmp_path: Path) -> None:
    code = (
        "import datetime, torch.distributed as dist\n"
        f"store = dist.FileStore({str(tmp_path / 'store')!r}, 3)\n"
        "store.set_timeout(datetime.timedelta(seconds=1))\n"
        "dist.init_process_group('hpcore', store=store, rank=1, world_size=3)\n"
    )
    done = run(["-c", code])
    assert done.returncode == 1
    assert "ranks [0, 2] of 3 have not come" in done.stderr, done.stderr
