"""`hpcore run` from the outside: output, exit codes, environment, bad input; no torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ENV = {**os.environ, "HPCORE_PRELOAD": ""}
SHOW_ENVIRONMENT = """
import json, os, sys
names = ("RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE GROUP_RANK ROLE_RANK MASTER_ADDR "
         "MASTER_PORT OMP_NUM_THREADS TORCHELASTIC_RUN_ID").split()
print(json.dumps({"argv": sys.argv, "name": __name__, "path": sys.path[0],
                  **{name: os.environ[name] for name in names}}))
"""


def hpcore_run(
    tmp_path: Path, script: str, *options: str, args: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Runs a script, given as text, with `hpcore run`."""
    (tmp_path / "script.py").write_text(script)
    command = [sys.executable, "-m", "hpcore", "run", "--log-dir", str(tmp_path / "logs"), *options]
    command += [str(tmp_path / "script.py"), *args]
    return subprocess.run(
        command, capture_output=True, text=True, env=ENV, timeout=60, cwd=tmp_path, check=False
    )


def test_run_gives_torchrun_environment(tmp_path: Path) -> None:
    import json

    done = hpcore_run(tmp_path, SHOW_ENVIRONMENT, "--nproc", "3", args=("--lr", "1", "-v"))
    assert done.returncode == 0, done.stderr
    for rank in range(3):
        seen = json.loads((tmp_path / "logs" / f"rank{rank}.log").read_text())
        assert seen["argv"] == [str(tmp_path / "script.py"), "--lr", "1", "-v"]
        assert seen["name"] == "__main__" and seen["path"] == str(tmp_path)
        assert [seen[name] for name in ("RANK", "LOCAL_RANK", "ROLE_RANK")] == [str(rank)] * 3
        assert [seen[name] for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE")] == ["3"] * 2
        assert (seen["MASTER_ADDR"], seen["OMP_NUM_THREADS"]) == ("127.0.0.1", "1")
        assert f"[rank {rank}] {{" in done.stdout


def test_run_runs_modules(tmp_path: Path) -> None:
    (tmp_path / "tool.py").write_text("import sys; print('tool', __name__, sys.argv[1:])")
    command = [sys.executable, "-m", "hpcore", "run", "-m", "tool", "x"]
    done = subprocess.run(
        command, capture_output=True, text=True, env=ENV, timeout=60, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "[rank 0] tool __main__ ['x']" in done.stdout
    assert len(list((tmp_path / "runs").iterdir())) == 1


def test_run_shows_the_traceback_of_a_broken_script_once(tmp_path: Path) -> None:
    done = hpcore_run(tmp_path, "import sys\nimport no_such_module\n", "--nproc", "4")
    assert done.returncode == 1
    shown = [line for line in done.stdout.splitlines() if line.endswith("'no_such_module'")]
    assert len(shown) == 1 and "script.py" in done.stdout and "bootstrap" not in done.stdout
    assert "the script failed in rank" in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("ending", "code"),
    [("sys.exit(7)", 7), ("os.kill(os.getpid(), 9)", 137), ("os.abort()", 134), ("os._exit(0)", 0)],
)
def test_run_exits_with_the_first_failing_ranks_code(
    tmp_path: Path, ending: str, code: int
) -> None:
    script = (
        "import os, sys, time\n"
        f"if os.environ['RANK'] == '1': {ending}\n"
        f"if {code}: time.sleep(600)\n"
    )
    done = hpcore_run(tmp_path, script, "--nproc", "3")
    assert done.returncode == code, done.stderr
    assert ("rank 1" in done.stderr) == (code != 0)


def test_run_keeps_the_last_lines_of_a_killed_worker(tmp_path: Path) -> None:
    script = (
        "import os, sys\n"
        "for i in range(2000): print('line', i, 'x' * 100)\n"
        "sys.stderr.write('no newline')\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = hpcore_run(tmp_path, script)
    assert done.returncode == 137
    log = (tmp_path / "logs" / "rank0.log").read_text()
    assert log.startswith("line 0 ") and "line 1999 " in log and log.endswith("no newline")
    assert "[rank 0] no newline\n" in done.stdout
    assert done.stdout.count("[rank 0] line ") == 2000


def test_run_flushes_files_of_scripts_that_end(tmp_path: Path) -> None:
    done = hpcore_run(tmp_path, "f = open('kept', 'w'); f.write('all of it')")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "kept").read_text() == "all of it"


def test_run_ends_what_a_killed_worker_had_started(tmp_path: Path) -> None:
    script = (
        "import os, subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "open('child', 'w').write(str(child.pid))\n"
        "os.kill(os.getpid(), 9)\n"
    )
    assert hpcore_run(tmp_path, script).returncode == 137
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "child").read_text()), 0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--nproc", "0"], ["--nproc 0", "at least 1"]),
        (["--nproc", "many"], ["--nproc many", "auto"]),
        (["--nproc", "2", "--min", "3"], ["--min 3", "--nproc 2"]),
        (["--nproc", "60", "--standbys", "9"], ["69 workers", "64 slots"]),
        (["--standbys", "-1"], ["--standbys -1"]),
        (["--recovery-deadline", "0"], ["--recovery-deadline"]),
        (["--inject", "rank=1 point=lunch action=sigkill"], ["lunch", "forward"]),
    ],
)
def test_run_refuses_bad_options_in_one_line(
    tmp_path: Path, options: list[str], words: list[str]
) -> None:
    done = hpcore_run(tmp_path, "", *options)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1 and not done.stdout
    for word in words:
        assert word in done.stderr
    assert not (tmp_path / "logs").exists()


def test_run_names_a_script_that_is_not_there(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hpcore", "run", "nowhere.py"]
    done = subprocess.run(
        command, capture_output=True, text=True, env=ENV, timeout=60, cwd=tmp_path, check=False
    )
    assert done.returncode == 2 and "'nowhere.py' is not there" in done.stderr


def test_run_ends_scripts_as_python_does(tmp_path: Path) -> None:
    script = (
        "import atexit, threading, time\n"
        "atexit.register(lambda: print('handler'))\n"
        "threading.Thread(target=lambda: (time.sleep(0.1), print('thread'))).start()\n"
        "print('script', end='')\n"
    )
    done = hpcore_run(tmp_path, script)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "logs" / "rank0.log").read_text() == "scriptthread\nhandler\n"
