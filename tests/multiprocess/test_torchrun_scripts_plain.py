"""Plain torchrun scripts under `hpcore run`, under torchrun, and alone: no TCPStore, no socket."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from running import Run

pytestmark = pytest.mark.torch
ROOT = Path(__file__).parent.parent.parent
SCRIPT = str(ROOT / "tests" / "scripts" / "plain_hpcore.py")
PRELOAD = ("torch", "torch.distributed")


def test_torchrun_script_runs_without_listening(tmp_path: Path) -> None:
    with Run(tmp_path, [SCRIPT, "hpcore", "twice"], nproc=3, preload=PRELOAD) as run:
        assert run.finish() == 0, run.stop_reason()
    for rank in range(3):
        expected = "sum 6.0 objects [0, 1, 2] listening []"
        assert run.log(f"rank{rank}").count(expected) == 2


def test_torchrun_script_with_gloo_has_no_tcpstore(tmp_path: Path) -> None:
    """The port of MASTER_PORT stays free; gloo's own sockets are its own affair."""
    with Run(tmp_path, [SCRIPT, "gloo"], nproc=2, preload=PRELOAD) as run:
        assert run.finish() == 0, run.stop_reason()
    for rank in range(2):
        assert "sum 3.0 objects [0, 1]" in run.log(f"rank{rank}")


def test_torchrun_script_ends_when_a_rank_is_lost(tmp_path: Path) -> None:
    with Run(tmp_path, [SCRIPT, "hpcore", "die"], nproc=3, preload=PRELOAD) as run:
        assert run.finish() == 137
    logs = [run.log(f"rank{rank}") for rank in (0, 2)]
    assert not any("no error" in log for log in logs)


def launch(command: list[str], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **env}
    for name in ("RANK", "WORLD_SIZE"):
        if name not in env:
            environment.pop(name, None)
    return subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True, timeout=100
    )


MEETS = """
import os, torch, torch.distributed as dist
from hpcore import distributed
distributed.register()
import sys
sys.path.insert(0, os.environ["SCRIPTS"])
from plain_hpcore import listening
dist.init_process_group("hpcore", init_method="hpcore://")
tensor = torch.ones(3) * (dist.get_rank() + 1)
dist.all_reduce(tensor)
line = f"sum {tensor[0].item()} of {dist.get_world_size()} listening {listening()}\\n"
os.write(1, line.encode())  # at once: both ranks share the pipe
dist.destroy_process_group()
"""


def test_torchrun_itself_meets_through_proc(tmp_path: Path) -> None:
    script = tmp_path / "meets.py"
    script.write_text(MEETS)
    env = {"SCRIPTS": str(Path(SCRIPT).parent)}
    command = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", str(script)]
    done = launch(command, env)
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"sum 3\.0 of 2 listening \[\]", done.stdout)) == 2


def test_torchrun_script_alone_is_a_world_of_one(tmp_path: Path) -> None:
    script = tmp_path / "meets.py"
    script.write_text(MEETS)
    done = launch([str(script)], {"SCRIPTS": str(Path(SCRIPT).parent)})
    assert done.returncode == 0, done.stderr
    assert "sum 1.0 of 1 listening []" in done.stdout


def test_torchrun_rank_without_rank_0_is_told(tmp_path: Path) -> None:
    code = (
        "import datetime, torch.distributed as dist\n"
        "from hpcore import distributed\n"
        "distributed.register()\n"
        "dist.init_process_group('hpcore', init_method='hpcore://nobody',"
        " timeout=datetime.timedelta(seconds=0.2))\n"
    )
    done = launch(["-c", code], {"RANK": "1", "WORLD_SIZE": "2"})
    assert done.returncode == 1
    assert "DeadlineExceeded: hpcore://: rank 1 found no store of rank 0" in done.stderr
