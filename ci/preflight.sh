#!/usr/bin/env bash
# Is everything here that hpcore cannot bring itself? One line for the first thing that is missing, and what to install.
# usage: preflight.sh PYTHON VENV
set -uo pipefail
python=$1 venv=$2
need_mib=${HPCORE_NEED_MIB:-2000}  # torch's CPU build 900, tools 500, build 200, logs
fail() { echo "hpcore: $*" >&2; exit 1; }

[ "$(uname -s)" = Linux ] || fail "runs on Linux only (futexes, memfd): this is $(uname -s). Use a Linux machine or container."
command -v "$python" >/dev/null || fail "no $python: install Python 3.10 or newer (Debian: apt install python3 python3-venv), or say make PYTHON3=/path/to/python3."
"$python" - <<'PY' || fail "$python is $("$python" -V 2>&1): install Python 3.10 to 3.13 and say make PYTHON3=/path/to/it."
import sys
sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))
PY
"$python" -c 'import ensurepip, venv' 2>/dev/null ||
  fail "$python has no venv: install it (Debian: apt install python3-venv)."
[ -e "$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" ] ||
  fail "$python has no Python.h: install its headers (Debian: apt install python3-dev)."

cxx=${CXX:-}
if [ -z "$cxx" ]; then for cxx in c++ g++ clang++ ""; do command -v "$cxx" >/dev/null && break; done; fi
[ -n "$cxx" ] && command -v "${cxx%% *}" >/dev/null ||
  fail "no C++ compiler: install g++ 11 or newer, or clang 14 or newer (Debian: apt install g++), or set CXX."
scratch=$(mktemp -d) || fail "no temporary folder: set TMPDIR to a writable one."
trap 'rm -rf "$scratch"' EXIT
cat >"$scratch/probe.cpp" <<'CPP'
#include <atomic>
#include <bit>
#include <concepts>
#include <span>
#include <string>
template <std::integral T> constexpr int ones(T value) { return std::popcount(static_cast<unsigned>(value)); }
int main() { std::atomic<int> seen{ones(3)}; std::span<const char> text(std::string("x")); return seen.load() + int(text.size()) - 3; }
CPP
$cxx -std=c++20 "$scratch/probe.cpp" -o "$scratch/probe" 2>"$scratch/errors" && "$scratch/probe" ||
  fail "$cxx ($($cxx --version 2>/dev/null | head -1)) does not build C++20: install g++ 11 or newer, or clang 14 or newer, and set CXX."
command -v git >/dev/null || fail "no git: install it (Debian: apt install git)."

if [ ! -e "$venv/.installed" ]; then
  free_mib=$(df -Pm "$(dirname "$venv")" | awk 'NR == 2 {print $4}')
  [ "$free_mib" -ge "$need_mib" ] ||
    fail "$free_mib MiB free on the disk of $(cd "$(dirname "$venv")" && pwd): $need_mib MiB are needed. Free some, or clone to another disk."
fi
