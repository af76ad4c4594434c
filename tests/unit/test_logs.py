"""The relay of workers' output: nothing lost, nobody blocked."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from hpcore.agent.logs import TERMINAL_BYTES, LogRelay, make_pipe


class Terminal:
    """The reading end of a terminal that is read only when told to."""

    def __init__(self) -> None:
        self.read_fd, self.fd = os.pipe()

    def collect(self) -> bytes:
        """Everything; nobody writes any more."""
        os.close(self.fd)
        return self.read()

    def read(self) -> bytes:
        """Everything until the writing end is closed."""
        with os.fdopen(self.read_fd, "rb") as file:
            return file.read()


def test_relay_prefixes_lines_and_follows_the_rank(tmp_path: Path) -> None:
    terminal = Terminal()
    relay = LogRelay(terminal.fd)
    ours, theirs = make_pipe()
    relay.add(7, ours, str(tmp_path / "log"), "standby 4")
    os.write(theirs, b"one\ntw")
    first = os.read(terminal.read_fd, 100)  # shown, not only logged: the label was read by then
    relay.relabel(7, "rank 2")
    os.write(theirs, b"o\nbar 10%\rbar 99%\nlast")
    os.close(theirs)
    relay.finish(7)
    assert relay.wait(7, 10)
    relay.close()
    assert (tmp_path / "log").read_bytes() == b"one\ntwo\nbar 10%\rbar 99%\nlast"
    shown = (first + terminal.collect()).decode().splitlines()
    assert shown == ["[standby 4] one", "[rank 2] two", "[rank 2] bar 99%", "[rank 2] last"]


def test_relay_reads_what_a_dead_worker_left_although_the_pipe_is_open(tmp_path: Path) -> None:
    relay = LogRelay(None)
    ours, theirs = make_pipe()
    relay.add(1, ours, str(tmp_path / "log"), "rank 0")
    os.write(theirs, b"x" * 200_000 + b"end")
    relay.finish(1)
    assert relay.wait(1, 10)
    relay.close()
    os.close(theirs)
    assert (tmp_path / "log").read_bytes().endswith(b"end")


def test_slow_terminal_blocks_no_worker_and_says_what_it_missed(tmp_path: Path) -> None:
    terminal = Terminal()
    relay = LogRelay(terminal.fd)
    ours, theirs = make_pipe()
    relay.add(1, ours, str(tmp_path / "log"), "rank 0")
    line = b"y" * 99 + b"\n"
    total = 4 * TERMINAL_BYTES // len(line)
    for _ in range(total):  # would block for ever if the terminal, which nobody reads, mattered
        os.write(theirs, line)
    os.close(theirs)
    relay.finish(1)
    assert relay.wait(1, 30)
    assert (tmp_path / "log").stat().st_size == total * len(line)
    shown: list[bytes] = []
    reader = threading.Thread(target=lambda: shown.append(terminal.read()))
    reader.start()
    relay.close(patience_s=10)
    os.close(terminal.fd)
    reader.join(10)
    assert b"lines not shown" in shown[0]
    assert 0 < shown[0].count(b"[rank 0]") < total


def test_relay_shows_text_as_the_workers(tmp_path: Path) -> None:
    terminal = Terminal()
    relay = LogRelay(terminal.fd)
    ours, theirs = make_pipe()
    relay.add(1, ours, str(tmp_path / "log"), "rank 0")
    relay.show(1, "Traceback\n  boom\n")
    os.close(theirs)
    relay.finish(1)
    relay.close()
    relay.close()
    assert (tmp_path / "log").read_text() == "Traceback\n  boom\n"
    assert terminal.collect() == b"[rank 0] Traceback\n[rank 0]   boom\n"
