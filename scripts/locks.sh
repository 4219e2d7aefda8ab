#!/usr/bin/env bash
# Lock what each cloud's archive holds, at the versions that the tests run with: deploy/*/requirements.txt.
# Run it after a change of requirements-dev.txt. Needs uv.
set -euo pipefail
cd "$(dirname "$0")/.."
# Azure's SDK has a version for each Python: deploy/azure/requirements.in.
versions=$(mktemp)
trap 'rm -f "$versions"' EXIT
grep -v '^azure-functions==' requirements-dev.txt > "$versions"
lock() { # FILE, then uv's options
  local out=$1
  shift
  uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --no-emit-index-url \
    -c "$versions" --output-file "$out" "$@"
}
lock deploy/aws/requirements.txt pyproject.toml --extra s3
lock deploy/gcp/requirements.txt pyproject.toml --extra gcs deploy/gcp/requirements.in
lock deploy/azure/requirements.txt pyproject.toml --extra azure deploy/azure/requirements.in
for cloud in aws:s3 gcp:gcs azure:azure; do
  lock "deploy/${cloud%%:*}/requirements-labels.txt" pyproject.toml --extra "${cloud##*:}" --extra ingest \
    $([ "${cloud%%:*}" = aws ] || echo "deploy/${cloud%%:*}/requirements.in")
done
