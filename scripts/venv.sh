#!/usr/bin/env bash
# Make .venv with everything that development needs. Uses uv if it is there, else pip.
set -euo pipefail
cd "$(dirname "$0")/.."
python=""
for candidate in python3.11 python3.12 python3.13 python3; do
  if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    python=$candidate
    break
  fi
done
if [ -z "$python" ]; then
  echo "syncagent needs Python 3.11 or newer on the PATH" >&2
  exit 2
fi
echo "setting up .venv (once) ..." >&2
if command -v uv >/dev/null 2>&1; then
  uv venv -q --allow-existing -p "$("$python" -c 'import sys; print(sys.executable)')" .venv
  uv pip install -q -p .venv/bin/python -r requirements-dev.txt
  uv pip install -q -p .venv/bin/python --no-deps -e .
else
  "$python" -m venv .venv
  .venv/bin/python -m pip install -q --disable-pip-version-check -r requirements-dev.txt
  .venv/bin/python -m pip install -q --disable-pip-version-check --no-deps -e .
fi
touch .venv/.ready
