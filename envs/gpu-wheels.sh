#!/usr/bin/env bash
# Download what `make gpu` needs into a folder, for a machine that has PyTorch and no network:
# envs/gpu-wheels.sh build/wheels. Python 3.12 on Linux; PYTHON_VERSION=3.13 is for another one.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:?"a folder for the wheels is missing, as in: envs/gpu-wheels.sh build/wheels"}
version=${PYTHON_VERSION:-3.12}

# pip's constraints name packages of the lock file alone, not those that a machine with a GPU brings.
constraints=$(mktemp)
trap 'rm -f "$constraints"' EXIT
grep -E '^[A-Za-z0-9._-]+==' envs/lock.txt > "$constraints"

python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
    --python-version "$version" --implementation cp \
    --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 \
    --platform manylinux_2_17_x86_64 --platform any \
    --constraint "$constraints" --requirement envs/gpu-wheels.txt --dest "$folder"
echo "$folder: $(find "$folder" -name '*.whl' | wc -l) wheels, $(du -sh "$folder" | cut -f1)"
echo "There: python3 -m pip install --no-index --no-deps --target site $folder/*.whl"
echo "       PYTHONPATH=\$PWD/site make gpu"
