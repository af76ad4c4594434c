"""When a job cannot go on it stops, and says why."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from running import Run, expected, fake_job


def test_same_failure_three_times_stops_with_its_traceback(tmp_path: Path) -> None:
    with Run(tmp_path, fake_job(10, 0.0, "1:4:forward:exception!"), nproc=3) as run:
        assert run.finish() == 1
    assert "step 4 failed 3 times for the same reason" in run.stop_reason()
    assert "injected in rank" in run.stop_reason()
    assert len(run.all("roster")) == 3


def test_bug_that_all_ranks_meet_counts_once_a_generation(tmp_path: Path) -> None:
    faults = [f"{rank}:4:forward:exception!" for rank in range(4)]
    with Run(tmp_path, fake_job(10, 0.0, *faults), nproc=4) as run:
        assert run.finish() == 1
    assert len(run.all("roster")) == 3, "three attempts, whoever was heard first"


def test_rank_that_never_reaches_the_first_step_is_named(tmp_path: Path) -> None:
    command = fake_job(10, 0.0, "1:*:start:hang")
    with Run(tmp_path, command, nproc=2, recovery_deadline_s=0.5) as run:
        assert run.finish() == 1
    assert run.stop_reason().startswith("rank 1 did not reach the first step within 0.5 s")
    assert "rank1" in run.stop_reason()


def test_start_that_fails_three_times_stops(tmp_path: Path) -> None:
    with Run(tmp_path, fake_job(10, 0.0, "1:*:start:exit!"), nproc=2) as run:
        assert run.finish() == 9
    assert "3 times in a row" in run.stop_reason()
    # rank 0, three starts in a row of rank 1, and those before rank 0's own start broke the row
    assert 4 <= len(run.all("spawn")) <= 6


def test_replacement_that_is_never_ready_stops_at_the_deadline(tmp_path: Path) -> None:
    command = fake_job(10, 0.0, "1:4:forward:sigkill", "s:*:rehearsal:hang!")
    with Run(tmp_path, command, nproc=2, recovery_deadline_s=1.0) as run:
        assert run.finish() == 137
    assert "rank 1 was lost and no replacement was ready within 1.0 s" in run.stop_reason()


def test_lost_state_stops(tmp_path: Path) -> None:
    with Run(tmp_path, fake_job(10, 0.0, "0:4:forward:sigkill"), nproc=1, standbys=1) as run:
        assert run.finish() in (1, 137)
    assert "no member is left that holds the state of step 4" in run.stop_reason()


def test_max_restarts_is_a_limit(tmp_path: Path) -> None:
    command = fake_job(40, 0.01, "1:4:forward:sigkill", "0:20:forward:sigkill")
    with Run(tmp_path, command, nproc=2, standbys=1, max_restarts=1) as run:
        assert run.finish() == 137
    assert "after 1 restarts (the limit)" in run.stop_reason()


def test_standbys_that_do_not_fit_are_refused_with_figures(tmp_path: Path) -> None:
    figures = iter([1 << 40])
    with Run(
        tmp_path, fake_job(10, 0.0), standbys=2, available_bytes=lambda: next(figures, 1 << 20)
    ) as run:
        assert run.finish() == 2
    assert "2 standby(s) need about" in run.stop_reason()
    assert "use --standbys" in run.stop_reason()


def test_rank_that_fails_after_the_last_step_fails_the_job(tmp_path: Path) -> None:
    script = tmp_path / "late.py"
    lines = (
        Path(fake_job(3, 0.0)[0]).read_text() + "\n    time.sleep(0.2 * int(os.environ['RANK']))"
    )
    script.write_text(lines + "\n    sys.exit(4 * (os.environ['RANK'] == '1'))\n")
    with Run(tmp_path / "logs", [str(script), "3", "0"], nproc=2, standbys=1) as run:
        assert run.finish() == 4
    assert run.results() == [expected(3)] * 2
    assert len(run.all("roster")) == 1
