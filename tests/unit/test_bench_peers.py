"""Results of the peers' drivers: what they print is read, what they could not do is said."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from hpcore.bench import peers
from hpcore.bench.peers import PeerRun

DRIVER = """
import json, sys
for took in {times}:
    line = {{"peer": "fake", "kill_to_commit_s": took}}
    print(json.dumps(line if took else {{**line, "failure": "no step within 60 s"}}))
print("chatter")
sys.stderr.write("ImportError: no such peer\\n")
"""


def run(folder: Path, times: list[float | None]) -> peers.PeerResult:
    (folder / "fake_peer.py").write_text(DRIVER.format(times=times))
    said: list[str] = []
    result = peers._run(folder, PeerRun("fake", "best", 2), sys.executable, 16, said.append)
    assert len(said) == 1 + len(times)
    return result


def test_peer_results_are_read_from_lines(tmp_path: Path) -> None:
    result = run(tmp_path, [2.5, 3.5])
    assert (result.name, result.samples_s, result.failure) == ("fake/best", [2.5, 3.5], "")


def test_peer_that_did_not_come_back_is_named(tmp_path: Path) -> None:
    result = run(tmp_path, [2.5, None])
    assert result.samples_s == [2.5]
    assert result.note == "1 of 2 kills were not survived"
    assert "fake/best (any other rank): 1 of 2: no step within 60 s" in result.failure


def test_peer_that_cannot_run_says_why(tmp_path: Path) -> None:
    assert "ImportError: no such peer" in run(tmp_path, []).failure


@pytest.mark.parametrize("run", peers.all_peers(3))
def test_every_peer_has_a_driver(run: PeerRun) -> None:
    driver = Path(__file__).resolve().parents[2] / "bench" / "peers" / f"{run.peer}_peer.py"
    assert f'"{run.setting}"' in driver.read_text()
