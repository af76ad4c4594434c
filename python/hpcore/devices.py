"""The vendors' libraries that move state in device memory: where they are, and what opens them.

HPCORE_NCCL: the file of libnccl; else the one that this process has loaded already, the
nvidia-nccl wheel beside torch, the system's. HPCORE_CUDA: the file of libcuda. Nothing is loaded
before one of the functions is called; none imports torch.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hpcore import _core


def nccl_places() -> list[str]:
    """Files of the nvidia-nccl wheel, where one is installed. Nothing is imported."""
    spec = importlib.util.find_spec("nvidia")
    folders = list(spec.submodule_search_locations or []) if spec else []
    found = [Path(folder) / "nccl" / "lib" / "libnccl.so.2" for folder in folders]
    return [str(path) for path in found if path.exists()]


def open_nccl(
    env: Mapping[str, str] = os.environ, *, setup_limit_s: float = 10.0, answer_limit_s: float = 2.0
) -> Any:
    """libnccl. Raises NotFound with every place that was tried, or Unsupported."""
    return _core.NcclLibrary(
        env.get("HPCORE_NCCL", ""),
        nccl_places(),
        setup_limit_s=setup_limit_s,
        answer_limit_s=answer_limit_s,
    )


def open_cuda(env: Mapping[str, str] = os.environ, *, ordinal: int = 0, uuid: str = "") -> Any:
    """A CUDA device: by uuid (torch's `get_device_properties(i).uuid`), else by ordinal.

    Raises NotFound (no driver, no such device) or Unsupported (too old, no GPU).
    """
    return _core.CudaDevice(library=env.get("HPCORE_CUDA", ""), ordinal=ordinal, uuid=uuid)


def unique_ids(
    nccl: Any, sources: Iterable[int], receivers: Iterable[int]
) -> dict[tuple[int, int], bytes]:
    """One for each link (source, receiver), for one generation; whoever makes the roster makes
    them, and must live until the links are up."""
    readers = list(receivers)
    return {(source, reader): nccl.unique_id() for source in sources for reader in readers}
