#!/bin/bash
# Runs inside the private view: installs Docker and podman, makes the bases, and runs the tests in three stages.
#
#   inside.sh CHECKOUT [ARGUMENTS OF PYTEST]
#
# STAGES names some of them: `images` builds the images and runs them in the network of the host, `networks` runs the
# set-ups of docker-compose.yml in networks of their own, `pods` runs pods of the chart in podman. Each needs the first.
set -euo pipefail
cd "$1"
shift
export TRITONIC_CONTAINERS_LOGS=/var/lib/containers/logs TRITONIC_CONTAINERS_DOCKER=/usr/bin/docker
mkdir -p "$TRITONIC_CONTAINERS_LOGS"
pytest() { .venv/bin/python -m pytest -m containers --timeout=3600 -s -p no:cacheprovider "$@"; }

# shellcheck source=install.sh
. tests/containers/install.sh
# shellcheck source=docker_engine.sh
. tests/containers/docker_engine.sh

# In a network namespace of its own, which the engine's bridges and packet filters end with.
run_networks() {
    ip link set lo up
    # An address of the machine, and a host outside of it, for what containers reach and do not.
    ip address add 10.77.0.1/32 dev lo
    ip netns add outside
    ip link add outside0 type veth peer name outside1 netns outside
    ip address add 10.78.0.1/24 dev outside0
    ip link set outside0 up
    ip -n outside address add 10.78.0.2/24 dev outside1
    ip -n outside link set outside1 up
    ip netns exec outside .venv/bin/python -m http.server --bind 10.78.0.2 8000 >/dev/null 2>&1 &
    server=$!
    start_engine
    status=0
    pytest tests/containers/test_set_ups.py tests/containers/test_replicas.py "$@" || status=$?
    stop_engine
    kill "$server"
    return "$status"
}
run_pods() {
    ip link set lo up
    # podman looks there for cgroups of the second version, which has no controllers here.
    umount /sys/fs/cgroup/unified 2>/dev/null || true
    # Addresses of pods whose network is gone.
    rm -rf /var/lib/cni/networks
    pytest tests/containers/test_pods.py "$@"
}
if [ -n "${STAGE:-}" ]; then
    "run_$STAGE" "$@"
    exit
fi

stages=${STAGES:-images networks pods}
for stage in $stages; do
    case $stage in
    images)
        # Without bridges and packet filters, which are not of this mount namespace alone.
        start_engine --iptables=false --ip6tables=false --bridge=none
        DOCKER=$TRITONIC_CONTAINERS_DOCKER tests/containers/bases.sh >"$TRITONIC_CONTAINERS_LOGS/bases.log" 2>&1 ||
            { tail -40 "$TRITONIC_CONTAINERS_LOGS/bases.log" >&2; exit 1; }
        pytest tests/containers/test_images.py tests/containers/test_containers.py "$@"
        [[ $stages != *pods* ]] || archive_images
        stop_engine
        ;;
    *) STAGE=$stage unshare --mount --net "$0" "$PWD" "$@" ;;
    esac
done
