#!/bin/bash
# Runs inside the private view: installs a Docker engine, starts it, makes the bases, runs the tests, ends the engine.
#
#   inside.sh CHECKOUT [ARGUMENTS OF PYTEST]
set -euo pipefail
cd "$1"
shift
checkout=$PWD
logs=/var/lib/containers/logs
mkdir -p "$logs"

if ! command -v dockerd >/dev/null || ! command -v docker-compose >/dev/null || ! command -v mmdebstrap >/dev/null; then
    # Services of the packages must not start.
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
    chmod +x /usr/sbin/policy-rc.d
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -qq -y --no-install-recommends docker.io docker-compose containerd mmdebstrap >"$logs/apt.log" 2>&1
fi

# Without bridges and packet filters, which are not of this mount namespace alone: containers use the network of the host.
rm -f /var/run/docker.pid
dockerd --data-root /var/lib/containers/docker --exec-root /run/dk --pidfile /run/dk.pid --host unix:///run/dk.sock \
    --iptables=false --ip6tables=false --bridge=none >"$logs/dockerd.log" 2>&1 &
engine=$!
stop() {
    kill "$engine" 2>/dev/null || true
    wait "$engine" 2>/dev/null || true
}
trap stop EXIT
export DOCKER_HOST=unix:///run/dk.sock
docker=/usr/bin/docker
for _ in $(seq 60); do
    "$docker" info >/dev/null 2>&1 && break
    kill -0 "$engine" 2>/dev/null || { tail -20 "$logs/dockerd.log" >&2; exit 1; }
    sleep 1
done
"$docker" info --format 'Docker {{.ServerVersion}}, {{.Driver}}'

DOCKER=$docker tests/containers/bases.sh >"$logs/bases.log" 2>&1 || { tail -40 "$logs/bases.log" >&2; exit 1; }
export TRITONIC_CONTAINERS_DOCKER=$docker TRITONIC_CONTAINERS_LOGS=$logs
"$checkout/.venv/bin/pytest" tests/containers -m containers --timeout=3600 -s "$@"
