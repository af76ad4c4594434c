#!/usr/bin/env bash
# Builds libhpcore and _core with a sanitizer and runs the tests of the native rooms under it.
# usage: sanitize.sh address|thread|c10d [PYTEST ARGUMENTS]      needs $PYTHON (make sanitize sets it)
# The instrumented build lives in build/sanitize-<kind>: the package there is a copy, the working tree is left alone.
set -euo pipefail
cd "$(dirname "$0")/.."
kind=${1:?address, thread or c10d}
shift
build=build/sanitize-$kind
# c10d: address, with the torch module and its tests, less what needs gigabytes of threads or a compiler.
c10d=OFF select="not torch" default=(tests/unit tests/contract) skip=nothing
if [ "$kind" = c10d ]; then
  kind=address c10d=ON select=torch default=(tests/contract) skip="hundreds or to_the_31 or nothing_grows or compiled"
fi
case $kind in
  address) library=libasan.so; export ASAN_OPTIONS="detect_leaks=0:abort_on_error=1:handle_segv=0:log_path=$PWD/$build/report" ;;
  # PyTorch, NumPy and Python themselves are not instrumented: only races between instrumented accesses are reported.
  thread) library=libtsan.so; export TSAN_OPTIONS="ignore_noninstrumented_modules=1:halt_on_error=0:exitcode=0:die_after_fork=0:suppressions=$PWD/ci/tsan.supp:log_path=$PWD/$build/report" ;;
  *) echo "sanitize.sh: $kind? address, thread or c10d" >&2; exit 2 ;;
esac
export PATH="$(dirname "$PYTHON"):$PATH"
cmake -S . -B "$build" -G Ninja -DPython_EXECUTABLE="$PYTHON" -DHPCORE_BUILD_C10D=$c10d -DHPCORE_SANITIZE="$kind" >/dev/null
cmake --build "$build" -j 2
rm -rf "$build/tree" && mkdir -p "$build/tree/python"
cp -r python/hpcore "$build/tree/python/" && rm -f "$build"/tree/python/hpcore/*.so
cp "$build"/csrc/*.so "$build/tree/python/hpcore/"
cp -r tests ci csrc bench pyproject.toml "$build/tree/"

preload=$("${CXX:-c++}" -print-file-name=$library)
[ -e "$preload" ] || { echo "sanitize.sh: the compiler has no $library: install its runtime (Debian: libasan8, libtsan2)" >&2; exit 2; }
# libstdc++ too: without it the sanitizer finds no __cxa_throw to wrap.
cxx=$("${CXX:-c++}" -print-file-name=libstdc++.so.6)
export HPCORE_SANITIZED=$kind PYTHONPATH="$PWD/$build/tree/python" LD_PRELOAD="$preload $cxx"
cd "$build/tree"
rm -f "../report."*
code=0
options=() files=()
for argument in "$@"; do
  case $argument in tests*) files+=("$argument") ;; *) options+=("$argument") ;; esac
done
[ ${#files[@]} -gt 0 ] || files=("${default[@]}")
# ThreadSanitizer ends a process that is forked from one whose threads have come and gone and then starts its own:
# each file gets a fresh process.
[ "$kind" != thread ] || mapfile -t files < <(find "${files[@]%%::*}" -name 'test_*.py' -not -name 'test_packaging_*' | sort)
run() {  # without c10d, tests that import torch have nothing to find here
  setarch -R "$PYTHON" -m pytest -q -p no:cacheprovider -m "$select" -k "not ($skip)" --ignore-glob='*test_packaging_*' \
    -o timeout=600 -o faulthandler_timeout=0 "${options[@]}" "$@" || { [ $? -eq 5 ] || code=1; }  # 5: none selected
}
if [ "$kind" = thread ]; then
  for file in "${files[@]}"; do echo "== $file" && run "$file"; done
else
  run "${files[@]}"
fi
# Of any process, also one that a passing test started: pytest would keep what such a one writes to itself.
reports=$(grep -lE 'WARNING|ERROR' ../report.* 2>/dev/null || true)
[ -z "$reports" ] || { cat $reports >&2; echo "sanitize.sh: reports of $(wc -w <<<"$reports") processes" >&2; code=1; }
exit $code
