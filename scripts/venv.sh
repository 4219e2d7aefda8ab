#!/usr/bin/env bash
# Make .venv with everything that development needs.
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
[ -x .venv/bin/python ] || "$python" -m venv .venv
pip() { .venv/bin/python -m pip install -q --disable-pip-version-check "$@"; }
# uv installs the same in a tenth of the time; where it cannot be had, or finds no index, pip does it.
if { [ -x .venv/bin/uv ] || pip uv==0.13.9 2>/dev/null; } && .venv/bin/uv pip install -q -p .venv/bin/python -r requirements-dev.txt; then
  .venv/bin/uv pip install -q -p .venv/bin/python --no-deps -e .
else
  pip -r requirements-dev.txt
  pip --no-deps -e .
fi
touch .venv/.ready
