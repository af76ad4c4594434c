"""The stubs of the native modules: compares them with what is built, or writes them anew (--write).

They are generated from the docstrings that pybind11 makes, so whatever a binding says is what mypy
and an editor see. A module that is not built (_c10d without torch) is left out. The stub of _c10d
is made from the module for the torch that is installed: all of them must say the same.
"""

from __future__ import annotations

import difflib
import importlib.metadata
import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "python" / "hpcore"
HEAD = "# Generated from the built module by `make stubs`. Not to be edited.\n"


def generate(module: str, folder: Path) -> str:
    """The stub of hpcore.<module>, formatted."""
    tools = Path(sys.executable).parent
    run = {"check": True, "capture_output": True, "text": True, "timeout": 300}
    env = {**os.environ, "PYTHONPATH": str(ROOT / "python"), "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}
    generator = [str(tools / "pybind11-stubgen"), f"hpcore.{module}", "-o", str(folder)]
    subprocess.run(generator, env=env, **run)  # type: ignore[call-overload]
    made = folder / "hpcore" / f"{module}.pyi"
    made.write_text(HEAD + made.read_text())
    formatter = [str(tools / "ruff"), "format", "-q", "--config", str(ROOT / "pyproject.toml")]
    subprocess.run([*formatter, str(made)], **run)  # type: ignore[call-overload]
    return made.read_text()


def native_module(module: str) -> str | None:
    """What is compiled behind hpcore.<module>; None if it is not built."""
    if module == "_c10d":
        from hpcore import _torch_choice, errors

        try:
            return _torch_choice.native_module(importlib.metadata.version("torch"))
        except (errors.WrongTorch, importlib.metadata.PackageNotFoundError):
            return None
    return module if importlib.util.find_spec(f"hpcore.{module}") else None


def main() -> int:
    """Checks or writes; the exit code."""
    write = "--write" in sys.argv
    stale = False
    sys.path.insert(0, str(ROOT / "python"))
    for module in ("_core", "_c10d"):
        native = native_module(module)
        if native is None:
            print(f"{module} is not built: its stub is left as it is")
            continue
        with tempfile.TemporaryDirectory() as folder:
            try:
                new = generate(native, Path(folder))
            except subprocess.CalledProcessError as error:
                print(f"no stub of {module}:\n{error.stdout}{error.stderr}")
                stale = True
                continue
        path = PACKAGE / f"{module}.pyi"
        old = path.read_text() if path.exists() else ""
        if old == new:
            continue
        if write:
            path.write_text(new)
            print(f"wrote {path.relative_to(ROOT)}")
            continue
        stale = True
        lines = difflib.unified_diff(old.splitlines(), new.splitlines(), "committed", "built", n=1)
        print("\n".join(list(lines)[:60]))
        print(f"{path.relative_to(ROOT)} is not what the module says: `make stubs`, and commit it")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
