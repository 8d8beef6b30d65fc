#!/usr/bin/env bash
# Fetch the wheels of bindings.txt (some 5 MB, from PyPI, for the interpreter given) into a folder.
# They hold TensorRT's Python API without TensorRT. What the folder has already is not fetched again.
set -euo pipefail

python=${1:?usage: fetch_bindings.sh PYTHON FOLDER}
folder=${2:?usage: fetch_bindings.sh PYTHON FOLDER}

mkdir -p "$folder"
grep -v '^#' "$(dirname "$0")/bindings.txt" | while read -r wanted; do
  wheels=("$folder/${wanted/==/-}"-*.whl)
  if [ ! -f "${wheels[0]}" ]; then
    "$python" -m pip --disable-pip-version-check --quiet download --no-deps --only-binary=:all: \
      --dest "$folder" "$wanted"
  fi
done
