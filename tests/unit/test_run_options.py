"""Options, memory figures, mail, tracebacks: the pure parts of `hpcore run`."""

from __future__ import annotations

import traceback
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from hpcore.agent import mail, memory
from hpcore.agent.bootstrap import shorten
from hpcore.agent.environment import JobEnvironment, template_environment
from hpcore.agent.options import AgentOptions, default_preload
from hpcore.errors import InvalidArgument
from hpcore.membership.state import Faulted, ScriptFailed, StopAsked

GIB = 1 << 30


def test_options_refuse_more_workers_than_memory(tmp_path: Path) -> None:
    script = tmp_path / "s.py"
    script.write_text("")
    options = AgentOptions(
        nproc=4,
        standbys=4,
        command=[str(script)],
        worker_estimate_bytes=GIB,
        available_bytes=lambda: 5 * GIB,
    )
    with pytest.raises(InvalidArgument, match=r"needs about 8\.00 GiB .*5\.00 GiB .*--standbys 1"):
        options.check()
    replace(options, standbys=1).check()
    with pytest.raises(InvalidArgument, match="--nproc 5 --standbys 0"):
        replace(options, nproc=9, standbys=0).check()


def test_options_refuse_folders_and_nothing(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="is a directory"):
        AgentOptions(nproc=1, command=[str(tmp_path)]).check()
    with pytest.raises(InvalidArgument, match="no script"):
        AgentOptions(nproc=1, command=[]).check()


def test_standby_shortage_names_what_fits() -> None:
    assert memory.standby_shortage(2, GIB, 3 * GIB) == ""
    assert "use --standbys 2" in memory.standby_shortage(3, GIB, 2 * GIB + 1)


def test_standby_has_the_identity_of_the_last_rank() -> None:
    environment = JobEnvironment("job", 4, 1234, 9, "logs", "", 60.0, 0, 77)
    env = environment.of_worker(5, 8, None)
    assert (env["RANK"], env["HPCORE_STANDBY"], env["HPCORE_SLOT"]) == ("3", "1", "5")
    assert environment.of_worker(0, 1, 2)["RANK"] == "2"


def test_template_environment_keeps_the_users_settings() -> None:
    env = template_environment({"OMP_NUM_THREADS": "3"})
    assert env["OMP_NUM_THREADS"] == "3"
    assert default_preload({"HPCORE_PRELOAD": " a, b ,"}) == ["a", "b"]
    assert default_preload({"HPCORE_PRELOAD": ""}) == []


def native_mail(kind: int, flags: int = 0, text: str = "") -> SimpleNamespace:
    return SimpleNamespace(
        at_ns=5, slot=2, incarnation=9, mail_kind=kind, step=7, flags=flags, text=text
    )


def test_mail_becomes_events() -> None:
    fault = mail.event_of(native_mail(mail.FAULT, 3 << 8 | 1, "t"))
    assert isinstance(fault, Faulted)
    assert (fault.generation, fault.torn, fault.step, fault.slot) == (3, True, 7, 2)
    assert isinstance(mail.event_of(native_mail(mail.SCRIPT_ERROR)), ScriptFailed)
    assert isinstance(mail.event_of(native_mail(mail.STOP, text="why")), StopAsked)
    assert mail.event_of(native_mail(mail.RELEASED)) is None


def failing(rank: int) -> str:
    try:
        raise ValueError(f"rank {rank} at 0x7f{rank:04x}")
    except ValueError:
        return traceback.format_exc()


def test_signature_is_the_same_on_all_ranks() -> None:
    assert mail.signature(failing(1)) == mail.signature(failing(22))
    assert "ValueError" in mail.signature(failing(1)) and "failing" in mail.signature(failing(1))
    assert mail.signature(failing(1)) != mail.signature(failing(1).replace("ValueError", "OSError"))
    assert mail.signature("") == ""


def test_shorten_keeps_beginning_and_end() -> None:
    text = "begin " + "ä" * 50_000 + " end"
    short = shorten(text, 1000)
    assert short.startswith("begin ") and short.endswith(" end")
    assert len(short.encode()) <= 1000
    assert shorten("short", 1000) == "short"
