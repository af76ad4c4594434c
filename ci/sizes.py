"""Files over 300 lines and functions over 50: a reminder to split by noun, never an error."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILE_LINES, FUNCTION_LINES = 300, 50
_NO_FUNCTION = re.compile(r"^(namespace|class|struct|enum|union|extern|using|template<>)\b|=\s*\{$")


def native_functions(text: str) -> Iterator[tuple[str, int]]:
    """Name and length of each function whose body closes in column 0."""
    head, begin = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if line and not line[0].isspace() and line[0] not in "}#/":
            head, begin = line, number
        elif line.startswith("}") and head and not _NO_FUNCTION.search(head):
            yield (
                head.split("(")[0].split()[-1] if head.split("(")[0].split() else head,
                number - begin + 1,
            )
            head = ""


def python_functions(text: str) -> Iterator[tuple[str, int]]:
    """Name and length of each function."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


def main() -> None:
    """Prints what is too long, the longest first."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout
    found = []
    for name in listed.split():
        path = ROOT / name
        if path.suffix not in (".py", ".cpp", ".hpp") or not path.exists():
            continue
        text = path.read_text()
        if (lines := text.count("\n")) > FILE_LINES:
            found.append((lines, f"{name}: {lines} lines (limit {FILE_LINES})"))
        functions = python_functions(text) if path.suffix == ".py" else native_functions(text)
        found += [
            (lines, f"{name}: {function} has {lines} lines (limit {FUNCTION_LINES})")
            for function, lines in functions
            if lines > FUNCTION_LINES
        ]
    print(
        "\n".join(text for _, text in sorted(found, reverse=True))
        or "no file or function is too long"
    )


if __name__ == "__main__":
    main()
