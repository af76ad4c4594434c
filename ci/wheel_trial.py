"""Tries an installed wheel: the package, two ranks that reduce, a torch that it cannot know.

usage: wheel_trial.py                     in two ranks: all_reduce over the backend `hpcore`
       wheel_trial.py package VERSION...  what the wheel holds; it must hold a _c10d for each torch
       wheel_trial.py third               beside a package `torch` that is but a version number
"""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import tempfile
from pathlib import Path

THIRD = "2.99.0"


def reduce() -> None:
    """One rank of two."""
    import torch
    import torch.distributed as dist

    dist.init_process_group("hpcore")
    tensor = torch.arange(1000.0) + dist.get_rank()
    dist.all_reduce(tensor)
    assert tensor.equal(2 * torch.arange(1000.0) + 1), tensor
    backend = dist.get_backend()
    line = (
        f"rank {dist.get_rank()} of {dist.get_world_size()}: {backend}, torch {torch.__version__}"
    )
    os.write(1, f"{line}\n".encode())
    dist.destroy_process_group()


def package(versions: list[str]) -> None:
    """The files of the wheel, and the module that is taken for the torch at hand."""
    import torch

    import hpcore
    from hpcore import _c10d, _core, _torch_choice

    folder = Path(hpcore.__file__).parent
    assert Path(_core.__file__).parent == folder
    assert (folder / "py.typed").exists() and (folder / "_c10d.pyi").exists()
    wanted = sorted(_torch_choice.minor_of(version) for version in versions)
    assert _torch_choice.built_for() == wanted, _torch_choice.built_for()
    name = _torch_choice.native_module(torch.__version__)
    assert _c10d.make_backend is sys.modules[f"hpcore.{name}"].make_backend
    print("tried: hpcore", importlib.metadata.version("hpcore"), "with torch", torch.__version__)


def third() -> None:
    """A torch of another minor: the error names what there is."""
    probe = "from hpcore import _c10d"
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "torch").mkdir()
        Path(folder, "torch", "__init__.py").write_text(f"__version__ = '{THIRD}'\n")
        env = {**os.environ, "PYTHONPATH": folder}
        done = subprocess.run(
            [sys.executable, "-c", probe], env=env, capture_output=True, text=True, check=False
        )
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"hpcore.errors.WrongTorch: torch {THIRD} is installed"), done.stderr
    print("a third torch is told:", last)


if __name__ == "__main__":
    if len(sys.argv) == 1:
        reduce()
    elif sys.argv[1] == "package":
        package(sys.argv[2:])
    else:
        third()
