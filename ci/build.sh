#!/usr/bin/env bash
# Builds the native libraries in place (python/hpcore/*.so) with the Python given by $PYTHON. One build at a time.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
build=${BUILD_DIR:-$root/build/dev}
mkdir -p "$build"
exec 9>"$build/.lock"
flock 9
export PATH="$(dirname "$python"):$PATH"
launcher=()
if command -v ccache >/dev/null; then launcher=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache); fi
cmake -S "$root" -B "$build" -G Ninja -DPython_EXECUTABLE="$python" "${launcher[@]}" "$@" >"$build/configure.log" ||
  { cat "$build/configure.log" >&2; exit 1; }
cmake --build "$build"
rm -f "$root"/python/hpcore/_c10d.*.so  # of older trees: it would be found before _c10d.py
for library in "$build"/csrc/libhpcore.so "$build"/csrc/_core*.so "$build"/csrc/_c10d_*.so; do
  [ -e "$library" ] || continue
  cp "$library" "$root/python/hpcore/.new.so" && mv "$root/python/hpcore/.new.so" "$root/python/hpcore/$(basename "$library")"
done
