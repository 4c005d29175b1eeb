#!/usr/bin/env bash
# Installs the Debian packages that the tests use, if run as root on Debian. Without them, those tests are skipped.
set -euo pipefail
packages=(
  podman runc debootstrap netavark aardvark-dns catatonit iptables uidmap # tests/images
  prometheus # promtool: tests/images, tests/k8s
  chromium # tests/e2e/page/test_page.py, tests/docs
  gcc libc6-dev # tests/e2e/processes/test_clock.py
  docker-registry # tests/hub
  nginx-light # tests/e2e/test_nginx.py
  shellcheck # tests/training/test_scripts.py
)
if [[ $(id -u) -ne 0 ]] || ! command -v apt-get >/dev/null; then
  echo "not root on Debian: tests that need ${packages[*]} will be skipped"
  exit 0
fi
export DEBIAN_FRONTEND=noninteractive
dpkg --status "${packages[@]}" >/dev/null 2>&1 ||
  { apt-get update -qq && apt-get install --yes -qq --no-install-recommends "${packages[@]}"; }
