#!/bin/bash
# `make containers`: builds the images on stand-in bases and runs them in a Docker engine of their own.
#
#   tests/containers/run.sh [ARGUMENTS OF PYTEST]
#
# STATE is the folder of the private view (40 GB apparent, some 15 GB used); without it one is made and removed.
set -euo pipefail
cd "$(dirname "$0")/../.."
if [ "$(id -u)" != 0 ]; then
    echo "The containers are tested as root: the engine runs in a private view of this machine." >&2
    exit 1
fi
if [ -z "${STATE:-}" ]; then
    STATE=$(mktemp -d -p "${TMPDIR:-/var/tmp}" tritonic-containers.XXXXXX)
    trap 'rm -rf "$STATE"' EXIT
fi
export STATE
nice tests/containers/enter.sh "$PWD/tests/containers/inside.sh" "$PWD" "$@"
