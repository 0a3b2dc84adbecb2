#!/bin/bash
# Runs a command in a private copy-on-write view of this machine, so that nothing it installs or writes stays behind:
#
#   STATE=/some/folder enter.sh COMMAND...
#
# The view lies on an ext4 image in a sparse file in STATE, on which overlayfs works as Docker's storage driver. A second
# call finds the view as the first one left it. Only root may do this.
set -euo pipefail
: "${STATE:?name a folder for the view}"
mkdir -p "$STATE"
export STATE
if [ ! -f "$STATE/view.img" ]; then
    truncate -s 40G "$STATE/view.img"
    mkfs.ext4 -q "$STATE/view.img"
fi
# shellcheck disable=SC2016 # the inner shell expands these
exec unshare --mount --propagation private bash -c '
set -e
cd "$STATE"
mkdir -p view
mount -o loop view.img view 2>/dev/null || mount "$(losetup -j view.img | cut -d: -f1 | head -1)" view
mkdir -p view/upper view/work view/root view/containers
mount -t overlay overlay -o lowerdir=/,upperdir=view/upper,workdir=view/work view/root
cd view/root
for each in dev proc sys; do mount --rbind /$each $each; done
mount -t tmpfs tmpfs run
mkdir -p var/lib/containers old
mount --bind ../containers var/lib/containers
pivot_root . old
cd /
exec "$@"' _ "$@"
