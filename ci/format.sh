#!/usr/bin/env bash
# Is all code formatted as .clang-format and pyproject.toml say? --write formats it.
set -uo pipefail
cd "$(dirname "$0")/.."
export PATH="$(dirname "$PYTHON"):$PATH"
mapfile -t native < <(git ls-files --cached --others --exclude-standard -- '*.cpp' '*.hpp' | while read -r f; do [ -e "$f" ] && echo "$f"; done)
if [ "${1:-}" = --write ]; then
  clang-format -i "${native[@]}" && ruff check -q --fix . && ruff format -q .
else
  clang-format --dry-run --Werror "${native[@]}"
  native_code=$?
  ruff format --check -q . || { ruff format --check . ; false; }
  [ $? -eq 0 ] && [ $native_code -eq 0 ] || { echo "make format writes it"; exit 1; }
fi
