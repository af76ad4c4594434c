"""Which native c10d module is taken for which torch, and what a third torch is told."""

from __future__ import annotations

import importlib.machinery
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hpcore import _torch_choice, errors

ROOT = Path(__file__).resolve().parents[2]
ENDING = importlib.machinery.EXTENSION_SUFFIXES[0]


def folder_with(path: Path, *names: str) -> Path:
    for name in names:
        (path / name).touch()
    return path


@pytest.mark.parametrize(
    ("version", "module"),
    [
        ("2.13.0", "_c10d_2_13"),
        ("2.13.4+cpu", "_c10d_2_13"),
        ("2.14.1+cu130", "_c10d_2_14"),
        ("2.14.0a0+git5c48869", "_c10d_2_14"),
    ],
)
def test_choice_goes_by_the_minor(tmp_path: Path, version: str, module: str) -> None:
    there = folder_with(tmp_path, f"_c10d_2_13{ENDING}", f"_c10d_2_14{ENDING}")
    assert _torch_choice.native_module(version, there) == module


def test_choice_takes_only_modules_of_this_python(tmp_path: Path) -> None:
    other = ".cpython-39-x86_64-linux-gnu.so"
    names = (f"_c10d_2_13{other}", "_c10d_2_13.py", f"_c10d_2_14{ENDING}", f"_c10d_2_9{ENDING}")
    assert _torch_choice.built_for(folder_with(tmp_path, *names)) == [(2, 9), (2, 14)]


def test_choice_tells_a_third_torch_what_there_is(tmp_path: Path) -> None:
    there = folder_with(tmp_path, f"_c10d_2_14{ENDING}", f"_c10d_2_13{ENDING}")
    with pytest.raises(errors.WrongTorch) as caught:
        _torch_choice.native_module("2.15.0+cpu", there)
    assert isinstance(caught.value, ImportError)
    assert isinstance(caught.value, errors.Unsupported)
    text = str(caught.value)
    assert text.startswith("torch 2.15.0+cpu is installed")
    assert f"is built for torch 2.13, 2.14 (in {there})" in text
    assert "pip install 'torch==2.14.*'" in text


def test_choice_tells_when_nothing_is_built(tmp_path: Path) -> None:
    with pytest.raises(errors.WrongTorch, match=r"for no torch at all; torch 2\.13\.0 is"):
        _torch_choice.native_module("2.13.0", tmp_path)
    with pytest.raises(errors.WrongTorch, match="'unknown'"):
        _torch_choice.native_module("unknown", tmp_path)


def test_import_under_a_third_torch_raises_import_error(tmp_path: Path) -> None:
    """A torch that is only a version number: hpcore imports, its c10d module says why not."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("__version__ = '2.99.1'\n")
    probe = (
        "import hpcore, hpcore.errors\n"
        "try:\n    from hpcore import _c10d\n"
        "except ImportError as error:\n    print(type(error).__name__, error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT / 'python'}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.match(r"WrongTorch .*torch 2\.99\.1 is installed", done.stdout)


def test_dependency_spans_the_versions_it_is_built_for() -> None:
    """pyproject.toml: [tool.hpcore] is the one list; the dependency is the range around it."""
    text = (ROOT / "pyproject.toml").read_text()
    known = re.findall(r"\d+\.\d+", re.findall(r"^torch = \[(.*)\]$", text, re.MULTILINE)[0])
    minors = [_torch_choice.minor_of(version) for version in known]
    assert minors == sorted(set(minors))
    (low, high), (last, after) = minors[0], minors[-1]
    assert f'"torch>={low}.{high},<{last}.{after + 1}"' in text


@pytest.mark.torch
def test_chosen_module_is_the_one_for_the_torch_at_hand() -> None:
    import torch

    from hpcore import _c10d

    major, minor = _torch_choice.minor_of(torch.__version__)
    native = sys.modules[f"hpcore._c10d_{major}_{minor}"]
    assert _c10d.make_backend is native.make_backend
    assert _c10d.__doc__ == native.__doc__
