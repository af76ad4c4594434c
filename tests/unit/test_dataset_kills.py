"""Builds that are killed, run out of space or meet each other: nothing wrong is ever seen."""

import gc
import os
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hpcore import _core, dataset
from hpcore.dataset import BuildOptions, Field
from hpcore.errors import HpcoreError, InvalidArgument, SystemCallError

FIELDS = [
    Field(name="pixels", kind="fixed", dtype="uint8", shape=(4096,)),
    Field(name="words", kind="tokens", dtype="uint16", vocabulary=65536),
    Field(name="marks", kind="varying", dtype="float32"),
]
RECORDS = 2000


def records() -> list[dict[str, np.ndarray]]:
    return [
        {
            "pixels": np.full(4096, number % 251, np.uint8),
            "words": np.arange(number % 300, dtype=np.uint16),
            "marks": np.full(number % 70, number, np.float32),
        }
        for number in range(RECORDS)
    ]


def build(out: Path, stop: Callable[[int], None] | None = None, checkpoint_s: float = 0) -> None:
    count = 0

    def progress(_done: int, _total: int | None) -> None:
        nonlocal count
        count += 1
        if stop is not None:
            stop(count)

    options = BuildOptions(checkpoint_s=checkpoint_s, progress=progress)
    dataset.build_records(records(), out, FIELDS, key="the same", options=options)


def forked(work: Callable[[], None]) -> int:
    """The wait status of a child that does the work."""
    gc.collect()
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    out = tmp_path_factory.mktemp("whole") / "o.hpd"
    build(out)
    return out.read_bytes()


def check_end(out: Path, undisturbed: bytes) -> None:
    build(out)
    assert out.read_bytes() == undisturbed
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_a_build_killed_behind_each_batch_goes_on(tmp_path: Path, undisturbed: bytes) -> None:
    """Killed again and again, each time one batch further on."""
    out = tmp_path / "o.hpd"
    batches = 0

    def kill(count: int) -> None:
        if count == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    while os.WIFSIGNALED(forked(lambda: build(out, kill))):
        assert not out.exists()
        batches += 1
        assert batches < 100
    assert batches >= 5
    assert out.read_bytes() == undisturbed
    assert [path.name for path in tmp_path.iterdir()] == ["o.hpd"]


def test_a_build_killed_at_any_write_goes_on(tmp_path: Path, undisturbed: bytes) -> None:
    """The kernel kills it (SIGXFSZ) at the first write behind a place in the file."""
    size = len(undisturbed)
    places = [1, 4096, 70_000, 2 << 20, (2 << 20) + 1, *range(3 << 20, size, size // 9)]
    places += [size - 1, size - 5, size - 200, size - 5000, size - 9000]
    for place in places:
        out = tmp_path / str(place) / "o.hpd"
        out.parent.mkdir()

        def die(place: int = place, out: Path = out) -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (place, place))
            build(out)

        status = forked(die)
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXFSZ, place
        assert not out.exists()
        check_end(out, undisturbed)


def test_a_build_killed_at_any_time_goes_on(tmp_path: Path, undisturbed: bytes) -> None:
    """Seeded delays over the whole build, its end included; the file is the whole one or absent."""
    begin = time.monotonic()
    build(tmp_path / "timed.hpd")
    took = time.monotonic() - begin
    random = np.random.default_rng(5)
    for number, share in enumerate(random.random(12)):
        out = tmp_path / str(number) / "o.hpd"
        out.parent.mkdir()
        child = os.fork()
        if child == 0:
            build(out)
            os._exit(0)
        time.sleep(took * float(share) * 1.1)  # the moment is the test's input, not a wait
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        if out.exists():
            assert out.read_bytes() == undisturbed
        check_end(out, undisturbed)


def test_other_input_does_not_go_on_from_what_was_left(tmp_path: Path) -> None:
    out, source = tmp_path / "o.hpd", tmp_path / "a.txt"
    source.write_bytes(b"first " * 800_000)
    options = BuildOptions(checkpoint_s=0, progress=lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    assert forked(lambda: dataset.build([source], out, options=options)) == signal.SIGKILL
    assert (tmp_path / "o.hpd.building" / "journal").exists()
    source.write_bytes(b"other " * 800_000)
    os.utime(source, ns=(1, 1))
    dataset.build([source], out)
    assert _core.DatasetFile(str(out), True).read(0, 0, 12) == b"other other "
    assert sorted(os.listdir(tmp_path)) == ["a.txt", "o.hpd"]


def test_a_damaged_journal_is_begun_anew(tmp_path: Path, undisturbed: bytes) -> None:
    out = tmp_path / "o.hpd"

    def kill(count: int) -> None:
        if count == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    assert forked(lambda: build(out, kill)) == signal.SIGKILL
    journal = tmp_path / "o.hpd.building" / "journal"
    content = bytearray(journal.read_bytes())
    content[len(content) // 2] ^= 1
    journal.write_bytes(content)
    check_end(out, undisturbed)
    assert forked(lambda: build(out.with_name("p.hpd"), kill)) == signal.SIGKILL
    os.truncate(tmp_path / "p.hpd.building" / "file", 2 << 20)
    build(out.with_name("p.hpd"))
    assert out.with_name("p.hpd").read_bytes() == undisturbed


def test_a_full_disk_is_an_error_and_the_build_goes_on(tmp_path: Path, undisturbed: bytes) -> None:
    out = tmp_path / "o.hpd"
    out.write_bytes(b"an old one stays")

    def without_space() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (6 << 20, 6 << 20))
        with pytest.raises(SystemCallError, match=r"writing .*o.hpd.building/file: File too"):
            build(out)

    assert forked(without_space) == 0
    assert out.read_bytes() == b"an old one stays"
    check_end(out, undisturbed)


def test_two_builders_of_one_name(tmp_path: Path, undisturbed: bytes) -> None:
    out = tmp_path / "o.hpd"

    def meet(count: int) -> None:
        if count == 2:
            with pytest.raises(InvalidArgument, match="another process is building"):
                build(out)
            status = forked(lambda: build(out))
            assert os.WEXITSTATUS(status) == 1

    build(out, meet)
    assert out.read_bytes() == undisturbed
    assert [path.name for path in tmp_path.iterdir()] == ["o.hpd"]


def test_processes_of_a_killed_build_end(tmp_path: Path) -> None:
    source, out = tmp_path / "a.txt", tmp_path / "o.hpd"
    source.write_bytes(b"words and words\n" * 400_000)
    pids = tmp_path / "pids"

    def kill(*_: object) -> None:
        found = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
        pids.write_text(found)
        os.kill(os.getpid(), signal.SIGKILL)

    options = BuildOptions(processes=2, progress=kill)
    assert forked(lambda: dataset.build([source], out, options=options)) == signal.SIGKILL
    children = [int(pid) for pid in pids.read_text().split()]
    assert len(children) == 2
    deadline = time.monotonic() + 30
    for pid in children:
        while _runs(pid):
            assert time.monotonic() < deadline, f"process {pid} lives on"
            time.sleep(0.01)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] not in "ZX"
    except OSError:
        return False


def test_a_process_of_a_build_that_dies_is_an_error(tmp_path: Path) -> None:
    source, out = tmp_path / "a.txt", tmp_path / "o.hpd"
    source.write_bytes(b"words and words\n" * 800_000)

    def kill(*_: object) -> None:
        for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
            if "hpcore.dataset.processes" in Path(f"/proc/{pid}/cmdline").read_text():
                os.kill(int(pid), signal.SIGKILL)

    with pytest.raises(HpcoreError, match=r"a process of the build .* ended with code -9"):
        dataset.build(
            [source], out, options=BuildOptions(processes=2, progress=kill, checkpoint_s=0)
        )
    about = dataset.build([source], out, options=BuildOptions(processes=2))
    assert about.tokens == source.stat().st_size
    dataset.verify(out)


def test_empty_input_and_empty_documents(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="nothing to write"):
        dataset.build_records([], tmp_path / "o.hpd", FIELDS)
    (tmp_path / "a.jsonl").write_text("\n\n")
    with pytest.raises(InvalidArgument, match="nothing to write"):
        dataset.build([tmp_path / "a.jsonl"], tmp_path / "o.hpd")
    assert os.listdir(tmp_path) == ["a.jsonl"]


def test_a_build_killed_between_its_new_name_and_the_cleaning(
    tmp_path: Path, undisturbed: bytes
) -> None:
    """Then the dataset is there, and the folder without the file that got the name."""
    out, folder = tmp_path / "o.hpd", tmp_path / "o.hpd.building"

    def kill(count: int) -> None:
        if count == 4:
            os.kill(os.getpid(), signal.SIGKILL)

    assert forked(lambda: build(out, kill)) == signal.SIGKILL
    (folder / "file").rename(out)
    check_end(out, undisturbed)
