# Debian's Docker, podman and mmdebstrap, and Compose 2 of the next Debian: installed in the private view.
if ! command -v dockerd >/dev/null || ! command -v catatonit >/dev/null || ! command -v mmdebstrap >/dev/null; then
    # Services of the packages must not start.
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
    chmod +x /usr/sbin/policy-rc.d
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -qq -y --no-install-recommends docker.io docker-compose containerd mmdebstrap iproute2 \
        podman crun catatonit \
        >"$TRITONIC_CONTAINERS_LOGS/apt.log" 2>&1 || { tail -20 "$TRITONIC_CONTAINERS_LOGS/apt.log" >&2; exit 1; }
fi
plugins=/usr/local/lib/docker/cli-plugins
if [ ! -x "$plugins/docker-compose" ]; then
    folder=$(mktemp -d)
    mkdir -p "$folder/lists/partial" "$folder/parts" "$plugins"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${DEBIAN_MIRROR:-http://deb.debian.org/debian} trixie main" \
        >"$folder/sources.list"
    options=(-o "Dir::Etc::SourceList=$folder/sources.list" -o "Dir::Etc::SourceParts=$folder/parts"
        -o "Dir::State::Lists=$folder/lists" -o "APT::Sandbox::User=root")
    apt-get "${options[@]}" update -qq
    (cd "$folder" && apt-get "${options[@]}" download -qq docker-compose && dpkg -x docker-compose_*.deb unpacked)
    cp "$(find "$folder/unpacked" -type f -name docker-compose -size +1M | head -1)" "$plugins/docker-compose"
    rm -rf "$folder"
fi
# Limits that a root without CAP_SYS_RESOURCE can set.
mkdir -p /etc/containers
printf '[containers]\ndefault_ulimits = ["nofile=20000:20000", "nproc=4096:4096"]\n[engine]\nevents_logger = "file"\n' \
    >/etc/containers/containers.conf
