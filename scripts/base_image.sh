#!/usr/bin/env bash
# Makes a base image from Debian's Python 3.11 where no registry can be reached; use it as --build-arg BASE_IMAGE=...
# Needs root, debootstrap and podman; takes a minute.
set -euo pipefail
name=localhost/debian-python:bookworm
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
debootstrap --variant=minbase --include=ca-certificates,python3,python3-pip,python3-venv bookworm "$tree"
ln -s /usr/bin/python3 "$tree/usr/local/bin/python"
rm "$tree"/usr/lib/python3*/EXTERNALLY-MANAGED
tar -C "$tree" -c --exclude='./var/cache/apt/*' --exclude='./var/lib/apt/lists/*' --exclude='./usr/share/doc/*' \
  --exclude='./usr/share/man/*' --exclude='./usr/share/locale/*' --exclude=__pycache__ . |
  podman import --change 'CMD ["python3"]' - "$name"
