#!/usr/bin/env bash
# All checks that run no test; each says how long it took, a failing one does not hide the others.
set -uo pipefail
cd "$(dirname "$0")/.."
export PATH="$(dirname "$PYTHON"):$PATH"
failed=""
check() {  # check NAME COMMAND...
  local name=$1 begin=$SECONDS output
  shift
  if output=$("$@" 2>&1); then echo "$name: ok, $((SECONDS - begin)) s"; else
    echo "$output"
    echo "$name: FAILED, $((SECONDS - begin)) s"
    failed+=" $name"
  fi
}
check ruff ruff check -q .
[ -z "$failed" ] || { echo "checks that failed:$failed"; [ "${HPCORE_CHECKS:-advisory}" = advisory ] || exit 1; }
