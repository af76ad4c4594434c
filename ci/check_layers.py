"""The layers of the code: who may include or import whom. Prints each breach; exit code 1 if any.

C++: a room includes lower levels only; a room of its own level only through a header whose opening
comment says "Contract header". Only torch/ includes libtorch, only bind/ and torch/ include
pybind11. Python: nothing imports cli; a module imports its own layer or lower ones; the imports
that run at import time have no cycle; `import hpcore` does not import torch.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROOMS = {
    "base": 0,
    "driver": 1,
    "roster": 2,
    "store": 2,
    "dataset": 2,
    "transport": 2,
    "collective": 3,
    "state": 3,
    "torch": 4,
    "bind": 4,
}
FOREIGN = {
    "torch": re.compile(r"^<(torch|ATen|c10|caffe2)/"),
    "bind": re.compile(r"^<(pybind11/|Python\.h)"),
}
# A package or module of hpcore -> its layer. What is not named is public: _PUBLIC.
LAYERS = {
    "errors": 0,
    "_version": 0,
    "_core": 0,
    "_torch_choice": 1,
    "_c10d": 1,
    "membership": 1,
    "agent": 3,
    "agent.events": 1,  # events.jsonl: agent and workers write it
    "agent.data_cache": 1,  # workers keep results in it
    "agent.shadow_memory": 1,  # workers keep copies in it
    "integrations": 3,
    "integrations.meshes": 2,  # the loop moves them into the next generation
    "integrations.fsdp2": 2,
    "report": 4,
    "bench": 5,
    "demo": 5,
    "cli": 6,
    "__main__": 7,
}
_PUBLIC = 2


def _includes(path: Path) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(path.read_text().splitlines(), 1):
        found = re.match(r"\s*#\s*include\s+([<\"][^>\"]+[>\"])", line)
        if found:
            yield number, found[1]


def _is_contract(header: Path) -> bool:
    comment: list[str] = []
    if not header.exists():
        return False
    for line in header.read_text().splitlines():
        if not line.startswith("//"):
            break
        comment.append(line)
    return "contract header" in " ".join(comment).lower()


def native_breaches(root: Path) -> list[str]:
    """Breaches of the layers under `root`/csrc, each as "file:line: what"."""
    found = []
    for path in sorted((root / "csrc").rglob("*.[ch]pp")):
        room = path.relative_to(root / "csrc").parts[0]
        where = path.relative_to(root)
        if room not in ROOMS:
            found.append(f"{where}: room {room!r} is not in ci/check_layers.py: give it a level")
            continue
        for number, target in _includes(path):
            breaches = _native_breach(root, room, target)
            found.extend(f"{where}:{number}: {why}" for why in breaches)
    return found


def _native_breach(root: Path, room: str, target: str) -> Iterator[str]:
    if target[0] == "<":
        if FOREIGN["torch"].match(target) and room != "torch":
            yield f"{target}: only csrc/torch may include libtorch"
        if FOREIGN["bind"].match(target) and room not in ("bind", "torch"):
            yield f"{target}: only csrc/bind and csrc/torch may know Python"
        return
    other = target.strip('"').split("/")[0]
    header = root / "csrc" / target.strip('"')
    if "/" not in target or other not in ROOMS:
        yield f'{target}: write includes as "room/header.hpp"'
    elif other != room and ROOMS[other] > ROOMS[room]:
        yield f"{target}: {room} (L{ROOMS[room]}) may not include {other} (L{ROOMS[other]})"
    elif other != room and ROOMS[other] == ROOMS[room] and not _is_contract(header):
        yield f"{target}: {room} and {other} are of one level and this is no contract header"


def _module_name(path: Path, package: Path) -> str:
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


class _Imports(ast.NodeVisitor):
    """hpcore's modules that a module imports: (line, name, at import time)."""

    def __init__(self, module: str, is_package: bool, known: set[str]) -> None:
        self.module, self.known = module, known
        self.home = module if is_package else module.rpartition(".")[0]
        self.found: list[tuple[int, str, bool]] = []
        self._depth = 0

    def _add(self, line: int, name: str) -> None:
        if name == "hpcore" or name.startswith("hpcore."):
            self.found.append((line, name, self._depth == 0))

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._add(node.lineno, alias.name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        base = node.module or ""
        if node.level:
            home = self.home.split(".")
            base = ".".join([*home[: len(home) - node.level + 1], *filter(None, [base])])
        for alias in node.names:
            full = f"{base}.{alias.name}"
            self._add(node.lineno, full if full in self.known else base)

    def visit_If(self, node: ast.If) -> None:
        typing_only = "TYPE_CHECKING" in ast.dump(node.test)
        self._depth += typing_only
        for child in node.body:
            self.visit(child)
        self._depth -= typing_only
        for child in node.orelse:
            self.visit(child)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._depth += 1
        self.generic_visit(node)
        self._depth -= 1

    visit_AsyncFunctionDef = visit_FunctionDef  # type: ignore[assignment]


def layer_of(module: str) -> int:
    """The layer of a module such as "hpcore.agent.events"."""
    parts = module.split(".")[1:]
    for length in range(len(parts), 0, -1):
        if ".".join(parts[:length]) in LAYERS:
            return LAYERS[".".join(parts[:length])]
    return _PUBLIC


def python_breaches(root: Path) -> list[str]:
    """Breaches of the layers under `root`/python/hpcore, each as "file:line: what"."""
    package = root / "python" / "hpcore"
    files = {_module_name(path, package): path for path in sorted(package.rglob("*.py"))}
    known = {*files, "hpcore._core"}
    found, graph = [], {}
    for module, path in files.items():
        visitor = _Imports(module, path.name == "__init__.py", known)
        visitor.visit(ast.parse(path.read_text()))
        graph[module] = {name for _, name, now in visitor.found if now and name in files}
        for line, name, _ in visitor.found:
            if layer_of(name) > layer_of(module):
                where = f"{path.relative_to(root)}:{line}"
                found.append(f"{where}: {module} may not import {name}, of a higher layer")
    return found + [f"cycle at import: {' -> '.join(cycle)}" for cycle in _cycles(graph)]


def _cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """One cycle for each knot of modules that import each other; [] if there is none."""
    state: dict[str, int] = {}
    found: list[list[str]] = []

    def visit(module: str, path: list[str]) -> None:
        state[module] = 1
        for other in sorted(graph[module] - {module}):
            if state.get(other) == 1:
                found.append([*path[path.index(other) :], other])
            elif other not in state:
                visit(other, [*path, other])
        state[module] = 2

    for module in sorted(graph):
        if module not in state:
            visit(module, [module])
    return found


def import_breaches(root: Path) -> list[str]:
    """["..."] if `import hpcore` brings torch in."""
    probe = "import sys, hpcore; sys.exit('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", probe],
        env={"PYTHONPATH": str(root / "python")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode == 0:
        return []
    return [f"`import hpcore` imports torch, or fails: {done.stderr.strip()[-500:]}"]


def main() -> int:
    """Runs all three; the exit code."""
    found = native_breaches(ROOT) + python_breaches(ROOT) + import_breaches(ROOT)
    print("\n".join(found) or "layers hold")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
