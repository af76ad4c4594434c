"""What an installation offers, and what the set-up says on a machine that lacks something."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import hpcore
from hpcore import errors

ROOT = Path(__file__).resolve().parents[2]


def preflight(python: str, venv: Path, **env: str) -> tuple[int, list[str]]:
    done = subprocess.run(
        ["/bin/bash", str(ROOT / "ci" / "preflight.sh"), python, str(venv)],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, (done.stdout + done.stderr).splitlines()


def tools_without(folder: Path, *missing: str) -> str:
    """A PATH with what the preflight calls, less `missing`."""
    folder.mkdir()
    for name in (
        "uname",
        "mktemp",
        "rm",
        "df",
        "awk",
        "dirname",
        "git",
        "head",
        "cat",
        "c++",
        "as",
        "ld",
    ):
        if name not in missing:
            (folder / name).symlink_to(shutil.which(name) or f"/usr/bin/{name}")
    return str(folder)


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_preflight_is_silent_on_this_machine(tmp_path: Path) -> None:
    assert preflight(sys.executable, tmp_path / ".venv") == (0, [])


def test_preflight_names_unsupported_python(tmp_path: Path) -> None:
    old = script(tmp_path / "python", '[ "$1" = -V ] && { echo Python 3.8.1; exit; }; exit 1')
    code, (line,) = preflight(old, tmp_path / ".venv")
    assert code == 1
    assert "is Python 3.8.1: install Python 3.10" in line


def test_preflight_names_missing_python(tmp_path: Path) -> None:
    code, (line,) = preflight(str(tmp_path / "none"), tmp_path / ".venv")
    assert code == 1
    assert "install Python 3.10 or newer" in line


def test_preflight_names_missing_venv(tmp_path: Path) -> None:
    bare = script(
        tmp_path / "python",
        f'[[ "$2" == *ensurepip* ]] && exit 1; exec {sys.executable} "$@"',
    )
    code, (line,) = preflight(bare, tmp_path / ".venv")
    assert code == 1
    assert "python3-venv" in line


@pytest.mark.parametrize(
    ("missing", "say"), [("c++", "no C++ compiler: install g++ 11"), ("git", "no git: install it")]
)
def test_preflight_names_missing_tool(tmp_path: Path, missing: str, say: str) -> None:
    path = tools_without(tmp_path / "bin", missing)
    env = {} if missing == "c++" else {"CXX": shutil.which("c++") or "c++"}
    code, (line,) = preflight(sys.executable, tmp_path / ".venv", PATH=path, **env)
    assert code == 1
    assert say in line


def test_preflight_names_compiler_without_cpp20(tmp_path: Path) -> None:
    old = script(tmp_path / "oldc++", '[ "$1" = --version ] && { echo old c++ 7.1; exit; }; exit 1')
    code, (line,) = preflight(sys.executable, tmp_path / ".venv", CXX=old)
    assert code == 1
    assert "(old c++ 7.1) does not build C++20: install g++ 11" in line


def test_preflight_names_disk_with_too_little_room(tmp_path: Path) -> None:
    code, (line,) = preflight(sys.executable, tmp_path / ".venv", HPCORE_NEED_MIB="999999999")
    assert code == 1
    assert re.search(r"\d+ MiB free on the disk of .*: 999999999 MiB are needed", line)


def test_install_without_network_says_so(tmp_path: Path) -> None:
    """pip fails as it does without a network; one line comes out."""
    venv = tmp_path / ".venv"
    (venv / "bin").mkdir(parents=True)
    script(
        venv / "bin" / "python",
        '[ "$4" = --version ] || [ "$3" = --version ] && exit 0\n'
        "echo 'Retrying: Failed to establish a new connection: Name or service not known'; exit 1",
    )
    done = subprocess.run(
        ["/bin/bash", str(ROOT / "ci" / "install.sh"), sys.executable, str(venv)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "hpcore: no network: pip cannot reach the package index. "
        "Connect, or point PIP_INDEX_URL at a mirror."
    ]


def test_package_has_types_and_version() -> None:
    package = ROOT / "python" / "hpcore"
    assert (package / "py.typed").exists()
    assert (package / "_core.pyi").read_text().startswith("# Generated")


def test_metadata_offers_command_and_backend() -> None:
    try:
        metadata = importlib.metadata.distribution("hpcore")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("hpcore is not installed in this environment, only on the path: make install")
    points = {(point.group, point.name): point.value for point in metadata.entry_points}
    assert points["console_scripts", "hpcore"] == "hpcore.cli.main:main"
    assert points["torch.backends", "hpcore"] == "hpcore.distributed:register"
    assert metadata.metadata["License-Expression"] == "Apache-2.0"
    assert metadata.version.startswith("0.")


def test_command_says_the_version_of_the_package() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hpcore", "--version"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == f"hpcore {hpcore.__version__}\n"


def test_errors_page_names_every_exception_and_its_builtin() -> None:
    page = (ROOT / "docs" / "errors.md").read_text()
    said = dict(re.findall(r"^\| `(\w+)` \| `(\w+)` \| \S.* \| \S.* \|$", page, re.MULTILINE))
    is_ours = {
        name: value
        for name, value in vars(errors).items()
        if isinstance(value, type) and value is not errors.HpcoreError
    }
    assert said == {name: value.__bases__[1].__name__ for name, value in is_ours.items()}
