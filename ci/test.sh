#!/usr/bin/env bash
# Native build, checks, all tests; what each took; fails if any of them failed. pytest comes last: its own summary closes.
# usage: test.sh [PYTEST ARGUMENTS]       needs $PYTHON (make test sets it)
set -uo pipefail
cd "$(dirname "$0")/.."
export PATH="$(dirname "$PYTHON"):$PATH"
begin=$SECONDS
bash ci/build.sh || exit 1
echo "build: $((SECONDS - begin)) s"
bash ci/checks.sh
checks=$?
"$PYTHON" -m pytest -q --durations=10 "$@"
tests=$?
[ $checks -eq 0 ] && [ $tests -eq 0 ]
