#!/bin/bash
# Makes stand-ins for the base images of .env, under the same names, where no registry can be reached. What passes on them
# holds for the project's own layers, users, capabilities and health checks, not for NVIDIA's image.
set -euo pipefail
cd "$(dirname "$0")"
docker=${DOCKER:-docker}
# shellcheck source=../../.env disable=SC1091
. ../../.env
exists() { "$docker" image inspect "$1" >/dev/null 2>&1; }
folder=$(mktemp -d -p /var/lib/containers bases.XXXXXX)
trap 'rm -rf "$folder"' EXIT

if ! exists "$PYTHON_IMAGE"; then
    # A CPython that lies in a folder of its own (pyenv, python.org, /usr/local), not Debian's.
    prefix=${PYTHON_PREFIX:-$(../../.venv/bin/python -c 'import sys; print(sys.base_prefix)')}
    if [ "$prefix" = /usr ]; then
        echo "PYTHON_PREFIX has to name a CPython 3.11 outside of /usr." >&2
        exit 1
    fi
    mmdebstrap --variant=minbase \
        --include=ca-certificates,curl,libbz2-1.0,libexpat1,libffi8,liblzma5,libncursesw6,libreadline8,libsqlite3-0,libssl3,libuuid1,netbase,tzdata,zlib1g \
        bookworm "$folder/debian.tar" ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"}
    "$docker" import "$folder/debian.tar" tritonic-stand-in-debian
    mkdir -p "$folder/python/prefix" "$folder/python/certificates" "$folder/python/wheels"
    tar -C "$prefix" --exclude='lib/python3.11/test' --exclude='__pycache__' \
        --exclude='lib/python3.11/site-packages/*' -cf - bin lib include | tar -C "$folder/python/prefix" -xf -
    # pip's settings and certificates of this machine; wheels in folders that it names.
    cp /etc/ssl/certs/ca-certificates.crt "$folder/python/certificates/"
    index=$("$prefix/bin/python3" -m pip config get global.index-url 2>/dev/null || true)
    {
        echo "[global]"
        echo "cert = /etc/ssl/certs/ca-certificates.crt"
        echo "find-links = /opt/stand-in-wheels"
        [ -z "${PIP_INDEX_URL:-$index}" ] || echo "index-url = ${PIP_INDEX_URL:-$index}"
        [ -z "${PIP_EXTRA_INDEX_URL:-}" ] || echo "extra-index-url = $PIP_EXTRA_INDEX_URL"
    } >"$folder/python/pip.conf"
    for wheels in ${PIP_FIND_LINKS:-}; do
        [ ! -d "$wheels" ] || cp "$wheels"/*.whl "$folder/python/wheels/" 2>/dev/null || true
    done
    cp python-base.Dockerfile "$folder/python/Dockerfile"
    "$docker" build --network host --tag "$PYTHON_IMAGE" "$folder/python"
fi

if ! exists "$TRITON_IMAGE"; then
    # No context: the Dockerfile copies nothing.
    "$docker" build --network host --build-arg "PYTHON_IMAGE=$PYTHON_IMAGE" --tag "$TRITON_IMAGE" - <triton-base.Dockerfile
fi

# The engines of NVIDIA's other images have no stand-in: what is built on these says that the Dockerfile builds.
for image in "$TRITON_VLLM_IMAGE" "$TRITON_TRTLLM_IMAGE"; do
    exists "$image" || "$docker" tag "$TRITON_IMAGE" "$image"
done

for base in postgres valkey prometheus; do
    variable=${base^^}_IMAGE
    if ! exists "${!variable}"; then
        context=$(mktemp -d -p "$folder")
        cp "$base-base.Dockerfile" "$context/Dockerfile"
        [ ! -f "$base-start" ] || cp "$base-start" "$context/"
        "$docker" build --network host --build-arg "PYTHON_IMAGE=$PYTHON_IMAGE" --tag "${!variable}" "$context"
    fi
done
