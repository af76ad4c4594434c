#!/usr/bin/env bash
# Another torch than ours: a virtual environment for it, its _c10d built in place (python/hpcore), and the tests of
# whatever knows torch. CI itself stays with the first torch of [tool.hpcore]; the rest of the working tree's build is
# made anew, from the same sources.
# usage: torch.sh MINOR [PYTEST ARGUMENTS]      such as: torch.sh 2.14 -x
#        VENV=folder (default: ~/.cache/hpcore/torch-MINOR), PYTHON3=python to make it with, TORCH_INDEX as for install.sh
set -euo pipefail
cd "$(dirname "$0")/.."
minor=${1:?the minor of torch, such as 2.14}
shift
version=$(sed -n 's/^torch = \[\(.*\)\]/\1/p' pyproject.toml | tr -d '",' | tr ' ' '\n' | grep "^${minor//./\\.}\.") || {
  echo "torch.sh: no torch $minor in [tool.hpcore] of pyproject.toml: $(grep '^torch = ' pyproject.toml)" >&2
  exit 2
}
venv=${VENV:-${XDG_CACHE_HOME:-$HOME/.cache}/hpcore/torch-$minor}
mkdir -p "$(dirname "$venv")"
TORCH_VERSION=$version bash ci/install.sh "${PYTHON3:-python3}" "$venv"
export PYTHON=$venv/bin/python PATH="$venv/bin:$PATH"
BUILD_DIR=build/torch-$minor bash ci/build.sh
"$PYTHON" ci/stubs.py
[ $# -gt 0 ] || set -- -q
mapfile -t files < <(grep -rlE 'import torch|mark\.torch|"torch"' tests --include='test_*.py' | sort)
exec "$PYTHON" -m pytest "$@" "${files[@]}"
