# A Docker engine in the private view: `start_engine OPTIONS…`, `stop_engine`.
export DOCKER_HOST=unix:///run/dk.sock

start_engine() {
    rm -f /var/run/docker.pid
    dockerd --data-root /var/lib/containers/docker --exec-root /run/dk --pidfile /run/dk.pid --host "$DOCKER_HOST" "$@" \
        >"$TRITONIC_CONTAINERS_LOGS/dockerd.log" 2>&1 &
    engine=$!
    trap stop_engine EXIT
    for _ in $(seq 60); do
        "$TRITONIC_CONTAINERS_DOCKER" info >/dev/null 2>&1 && break
        kill -0 "$engine" 2>/dev/null || { tail -20 "$TRITONIC_CONTAINERS_LOGS/dockerd.log" >&2; exit 1; }
        sleep 1
    done
    "$TRITONIC_CONTAINERS_DOCKER" info --format 'Docker {{.ServerVersion}}, {{.Driver}}'
}

stop_engine() {
    trap - EXIT
    kill "$engine" 2>/dev/null || true
    wait "$engine" 2>/dev/null || true
}

# For podman, which has a store of its own.
archive_images() {
    # shellcheck source=../../.env disable=SC1091
    . ./.env
    "$TRITONIC_CONTAINERS_DOCKER" save --output /var/lib/containers/images.tar \
        tritonic-gateway:0.1.0 tritonic-triton:0.1.0 tritonic-builder:0.1.0 "$POSTGRES_IMAGE"
}
