#!/usr/bin/env bash
# All checks that run no test; each says how long it took, and a failing one does not hide the others.
set -uo pipefail
cd "$(dirname "$0")/.."
export PATH="$(dirname "$PYTHON"):$PATH"
failed=""
check() {  # check NAME COMMAND...
  local name=$1 begin=${EPOCHREALTIME/./} output
  shift
  output=$("$@" 2>&1)
  local code=$? took=$(((${EPOCHREALTIME/./} - begin) / 100000))
  [ $code -eq 0 ] || { echo "$output"; failed+=" $name"; }
  printf 'check %-8s %s, %d.%d s\n' "$name" "$([ $code -eq 0 ] && echo ok || echo FAILED)" $((took / 10)) $((took % 10))
}
check ruff ruff check .
check format bash ci/format.sh
check layers "$PYTHON" ci/check_layers.py
check stubs "$PYTHON" ci/stubs.py
check mypy mypy
"$PYTHON" ci/sizes.py
[ -z "$failed" ] || { echo "checks that failed:$failed"; exit 1; }
