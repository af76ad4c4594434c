"""Files that change under a reader, or whose processes die: errors, never signals or leftovers."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from hpcore import _core, dataset
from hpcore.errors import CorruptData

BLOCK = 256 << 10
DATA = 2 << 20


def tokens_file(path: Path, blocks: int) -> Path:
    facts = {"name": "tokens", "kind": "tokens", "dtype": "uint16", "shape": ()}
    field = {**facts, "vocabulary": 65536, "separator": None}
    writer = _core.DatasetWriter(str(path), [field])
    values = np.arange(blocks * BLOCK // 2, dtype=np.uint32).astype(np.uint16)
    writer.append(0, values)
    writer.end_rows(0, np.array([values.size], np.uint64))
    writer.finish()
    return path


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("faulthandler", ["none", "before", "after"])
def test_a_file_cut_while_it_is_copied_is_an_error(tmp_path: Path, faulthandler: str) -> None:
    script = """
        import faulthandler, os, sys
        if sys.argv[2] == "before": faulthandler.enable()
        from hpcore import _core
        file = _core.DatasetFile(sys.argv[1], False)
        if sys.argv[2] == "after": faulthandler.enable()
        os.truncate(sys.argv[1], 3 << 20)
        for call in range(2):
            try:
                file.documents(0)  # reads the mapping without asking for the size first
            except ValueError as error:
                print(type(error).__name__, error)
    """
    done = run(script, tokens_file(tmp_path / "t.hpd", 8), faulthandler)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("CorruptData") == 2
    assert "cut short while it was open: it has 3145728 bytes" in done.stdout


@pytest.mark.skipif(
    "HPCORE_SANITIZED" in os.environ, reason="a sanitizer reports bus errors itself"
)
@pytest.mark.parametrize("faulthandler", ["none", "before", "after"])
def test_a_bus_error_of_others_still_ends_the_process(tmp_path: Path, faulthandler: str) -> None:
    script = """
        import faulthandler, mmap, os, sys
        if sys.argv[3] == "before": faulthandler.enable()
        from hpcore import _core
        _core.DatasetFile(sys.argv[1], True).documents(0)
        if sys.argv[3] == "after": faulthandler.enable()
        _core.DatasetFile(sys.argv[1], True).documents(0)
        with open(sys.argv[2], "wb+") as other:
            other.truncate(8192)
            view = mmap.mmap(other.fileno(), 8192)
            os.truncate(sys.argv[2], 0)
            view[4096]
    """
    done = run(script, tokens_file(tmp_path / "t.hpd", 1), tmp_path / "other", faulthandler)
    assert done.returncode == -signal.SIGBUS
    assert ("Fatal Python error: Bus error" in done.stderr) == (faulthandler != "none")
    assert done.stderr.count("Fatal Python error") <= 1


def test_blocks_are_checked_once_a_node(tmp_path: Path) -> None:
    path = str(tokens_file(tmp_path / "t.hpd", 80))
    first = _core.DatasetFile(path, True)
    first.read(0, 0, 30 * BLOCK)
    assert (first.checked_blocks, first.joined_checks) == (30, False)
    script = """
        import os, signal, sys
        from hpcore import _core
        file = _core.DatasetFile(sys.argv[1], True)
        print(file.checked_blocks, file.joined_checks, flush=True)
        file.read(0, 30 << 18, 10 << 18)
        if sys.argv[2] == "kill": os.kill(os.getpid(), signal.SIGKILL)
    """
    assert run(script, path, "end").stdout.split() == ["30", "True"]
    assert first.checked_blocks == 40
    assert run(script, path, "kill").returncode == -signal.SIGKILL
    del first
    begun_anew = _core.DatasetFile(path, True)
    assert (begun_anew.checked_blocks, begun_anew.joined_checks) == (0, False)


def test_checks_of_a_replaced_file_are_not_taken_over(tmp_path: Path) -> None:
    path = tokens_file(tmp_path / "t.hpd", 80)
    old = _core.DatasetFile(str(path), True)
    old.read(0, 0, 80 * BLOCK)
    damaged = bytearray(path.read_bytes())
    damaged[DATA + 5 * BLOCK] ^= 1
    (tmp_path / "new").write_bytes(damaged)
    os.rename(tmp_path / "new", path)
    with pytest.raises(CorruptData, match="block 5 of"):
        _core.DatasetFile(str(path), True).read(0, 0, 80 * BLOCK)
    assert len(old.read(0, 0, 80 * BLOCK)) == 80 * BLOCK  # who has it open keeps it


def test_scrub_reads_what_nobody_read(tmp_path: Path) -> None:
    path = tokens_file(tmp_path / "t.hpd", 10)
    damaged = bytearray(path.read_bytes())
    damaged[DATA + 9 * BLOCK + 7] ^= 0x80
    path.write_bytes(damaged)
    file = _core.DatasetFile(str(path), True)
    file.read(0, 0, 2 * BLOCK)
    assert file.scrub(4) == 4
    assert file.checked_blocks == 6
    with pytest.raises(CorruptData, match=rf"block 9 of 11 \(offset {DATA + 9 * BLOCK}, "):
        file.scrub(100)


def test_scrub_in_the_background_tells_of_damage(tmp_path: Path) -> None:
    path = tokens_file(tmp_path / "t.hpd", 80)
    reader = _core.DatasetFile(str(path), True)
    with dataset.Scrub(path, bytes_per_s=1 << 30) as scrub:
        assert scrub.wait(60)
        assert scrub.error is None
    assert reader.checked_blocks == 81  # the reader's blocks, too
    del reader
    damaged = bytearray(path.read_bytes())
    damaged[DATA + 70 * BLOCK] ^= 1
    path.write_bytes(damaged)
    with dataset.Scrub(path, bytes_per_s=1 << 30) as scrub:
        with pytest.raises(CorruptData, match="block 70 of 81"):
            scrub.wait(60)
        assert scrub.error is not None
    slow = dataset.Scrub(path, bytes_per_s=1)
    assert not slow.wait(0)
    slow.close()
    slow.close()
