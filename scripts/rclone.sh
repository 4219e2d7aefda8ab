#!/usr/bin/env bash
# Debian's rclone, the peer of the listing benchmark.
set -euo pipefail
command -v rclone >/dev/null 2>&1 && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  apt-get update -qq && apt-get install -y -qq --no-install-recommends rclone >/dev/null
else
  echo "the benchmark needs rclone: install your system's package of that name" >&2
  exit 2
fi
