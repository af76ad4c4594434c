#!/usr/bin/env bash
# The virtual environment: made when it is missing, filled when pyproject.toml's requirements changed; else done at once.
# usage: install.sh PYTHON VENV      TORCH_INDEX=URL takes torch from that index (PyTorch's CPU-only builds, say);
#        TORCH_VERSION=2.14.1 takes another torch than the first of [tool.hpcore]
set -uo pipefail
cd "$(dirname "$0")/.."
python=$1 venv=$2
fail() { echo "hpcore: $*" >&2; exit 1; }

torch=torch==${TORCH_VERSION:-$(sed -n 's/^torch = \["\([0-9.]*\)".*/\1/p' pyproject.toml)}

own_metadata() {  # hpcore itself: entry points and command, when pyproject.toml changed; two seconds
  local want
  want=$(cat pyproject.toml ci/dev_install.py | cksum)
  [ "$(cat "$venv/.metadata" 2>/dev/null)" != "$want" ] || return 0
  "$venv/bin/python" ci/dev_install.py ||
    fail "hpcore's own metadata could not be written to $venv: remove $venv and try again."
  echo "$want" >"$venv/.metadata"
}

want=$({ "$python" -V; sed -n '/^dependencies/p; /^torch = /p; /^\[dependency-groups\]/,/^\[tool/p' pyproject.toml; echo "$torch"; pwd; } | cksum)
if [ "$(cat "$venv/.installed" 2>/dev/null)" = "$want" ]; then
  own_metadata
  exit
fi
bash ci/preflight.sh "$python" "$venv" || exit 1

log=$(mktemp)
trap 'rm -f "$log"' EXIT
pip() {  # one line instead of pip's pages, when the cause is known
  "$venv/bin/python" -m pip --disable-pip-version-check "$@" >"$log" 2>&1 && return
  if grep -qE 'No space left|Errno 28' "$log"; then
    fail "the disk is full: 'pip $1' needs more room (torch with CUDA takes 7 GB; TORCH_INDEX can name PyTorch's CPU-only index)."
  elif grep -qE 'Failed to establish|name resolution|Name or service|Connection refused|Network is unreachable|Max retries|ReadTimeout|ConnectTimeout' "$log"; then
    fail "no network: pip cannot reach the package index. Connect, or point PIP_INDEX_URL at a mirror."
  fi
  tail -20 "$log" >&2
  fail "pip $* failed: its last lines are above."
}

echo "hpcore: making $venv (once; some minutes)"
[ -x "$venv/bin/python" ] && "$venv/bin/python" -m pip --version >/dev/null 2>&1 ||
  "$python" -m venv --clear "$venv" || fail "$python cannot make a virtual environment: install python3-venv (Debian: apt install python3-venv)."
pip install -q --upgrade 'pip>=25.1' || exit 1
pip install -q ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$torch" || exit 1
pip install -q --group dev $("$python" - <<'PY'
import re
print(*re.findall(r'"([^"]+)"', re.search(r"^dependencies = (\[.*?\])", open("pyproject.toml").read(), re.M | re.S)[1]))
PY
) || exit 1
own_metadata
echo "$want" >"$venv/.installed"
