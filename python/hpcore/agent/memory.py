"""What workers need and what the machine has, in bytes. Pure but for reading /proc."""

from __future__ import annotations

from hpcore.errors import InvalidArgument

WORKER_ESTIMATE_BYTES = 192 << 20
"""What a worker costs before its model: interpreter and torch, forked from the template
(measured: 60 to 110 MiB of private pages after the first step of a small model), and its place
in the node segment."""


def mem_available_bytes() -> int:
    """MemAvailable of /proc/meminfo."""
    with open("/proc/meminfo", encoding="ascii") as lines:
        for line in lines:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    return 1 << 62


def private_bytes(pid: int) -> int:
    """Pages that only this process has; 0 if it is gone."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as lines:
            kib = [int(line.split()[1]) for line in lines if line.startswith("Private_")]
    except (OSError, ValueError):
        return 0
    return sum(kib) << 10


def gib(size_bytes: int) -> str:
    """'1.25 GiB'."""
    return f"{size_bytes / (1 << 30):.2f} GiB"


def check_start(nproc: int, standbys: int, available_bytes: int, each_bytes: int) -> None:
    """Raises InvalidArgument if the workers cannot fit even with the smallest of models."""
    need = (nproc + standbys) * each_bytes
    if need <= available_bytes:
        return
    fit = available_bytes // each_bytes - nproc
    way_out = (
        f"use --standbys {fit}" if fit >= 0 else f"use --nproc {max(1, nproc + fit)} --standbys 0"
    )
    raise InvalidArgument(
        f"--nproc {nproc} --standbys {standbys} needs about {gib(need)} "
        f"({gib(each_bytes)} a worker before its model) and {gib(available_bytes)} is available: "
        f"{way_out}, or free memory"
    )


def standby_shortage(count: int, rank_bytes: int, available_bytes: int) -> str:
    """Why `count` more standbys do not fit beside ranks that have `rank_bytes` each; '' if they
    do."""
    need = count * rank_bytes
    if need <= available_bytes:
        return ""
    fit = available_bytes // rank_bytes if rank_bytes else count
    return (
        f"{count} standby(s) need about {gib(need)} (a rank has {gib(rank_bytes)} of its own) and "
        f"{gib(available_bytes)} is available: use --standbys {fit}, or free memory"
    )
