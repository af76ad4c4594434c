"""ci/check_layers.py: it holds for this tree, and it sees each kind of breach."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


def load_check() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_layers", ROOT / "ci" / "check_layers.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


check = load_check()


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("source", "text", "why"),
    [
        ("csrc/base/a.cpp", '#include "roster/b.hpp"\n', "base (L0) may not include roster (L2)"),
        ("csrc/store/a.cpp", '#include "roster/b.hpp"\n', "of one level"),
        ("csrc/store/a.cpp", "#include <torch/torch.h>\n", "only csrc/torch"),
        ("csrc/state/a.cpp", "#include <pybind11/pybind11.h>\n", "may know Python"),
        ("csrc/state/a.cpp", '#include "a.hpp"\n', "room/header.hpp"),
        ("csrc/attic/a.cpp", "", "give it a level"),
    ],
)
def test_layer_check_names_native_breach(tmp_path: Path, source: str, text: str, why: str) -> None:
    write(tmp_path, "csrc/roster/b.hpp", "// Purpose: none.\n#pragma once\n")
    write(tmp_path, source, text)
    (breach,) = check.native_breaches(tmp_path)
    assert breach.startswith(source)
    assert why in breach


def test_layer_check_allows_lower_rooms_and_contract_headers(tmp_path: Path) -> None:
    write(
        tmp_path, "csrc/roster/b.hpp", "// Contract header: the store may use it.\n#pragma once\n"
    )
    write(tmp_path, "csrc/store/a.cpp", '#include "base/status.hpp"\n#include "roster/b.hpp"\n')
    assert check.native_breaches(tmp_path) == []


def test_layer_check_names_python_breaches(tmp_path: Path) -> None:
    package = "python/hpcore/"
    write(tmp_path, package + "__init__.py", "")
    write(tmp_path, package + "cli/__init__.py", "")
    write(tmp_path, package + "errors.py", "def late():\n    from hpcore.cli import main\n")
    write(tmp_path, package + "job.py", "from hpcore import dataset\n")
    write(tmp_path, package + "dataset.py", "from .job import Job\n")
    upward, cycle = check.python_breaches(tmp_path)
    assert upward.startswith("python/hpcore/errors.py:2: hpcore.errors may not import hpcore.cli")
    assert cycle == "cycle at import: hpcore.dataset -> hpcore.job -> hpcore.dataset"


def test_layer_check_holds_for_this_tree() -> None:
    assert check.native_breaches(ROOT) + check.python_breaches(ROOT) == []


def test_import_of_hpcore_leaves_torch_alone() -> None:
    assert check.import_breaches(ROOT) == []
