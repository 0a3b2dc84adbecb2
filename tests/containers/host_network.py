"""The compose file of the project for an engine without bridges: every container in the network of the host."""

import copy
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Ports:
    """Ports of the host."""

    gateway: int
    grpc: int
    metrics: int


def on_host_network(compose: dict[str, Any], ports: Ports, memlock: int = 8_388_608) -> dict[str, Any]:
    """Return the services of the set-up `cpu` with these ports, without networks and profiles.

    `memlock` is a limit, in bytes, that an engine without CAP_SYS_RESOURCE can set. All else stays: images, users,
    read-only root file systems, capabilities, health checks, volumes, and the order of the start.
    """
    services = {name: copy.deepcopy(compose["services"][name]) for name in ("models", "triton", "gateway")}
    for service in services.values():
        for key in ("networks", "ports", "profiles"):
            service.pop(key, None)
        service["network_mode"] = "host"
        service["build"]["network"] = "host"
    triton, gateway = services["triton"], services["gateway"]
    triton["ulimits"]["memlock"] = memlock
    triton["command"] = ["triton-start", f"--grpc-port={ports.grpc}", f"--metrics-port={ports.metrics}"]
    triton["healthcheck"]["test"] = ["CMD", "triton-health", f"127.0.0.1:{ports.grpc}"]
    gateway["environment"]["TRITONIC_TRITON_URLS"] = f"127.0.0.1:{ports.grpc}"
    gateway["environment"]["TRITONIC_PORT"] = str(ports.gateway)
    gateway["environment"]["TRITONIC_HOST"] = "127.0.0.1"
    used = {volume.split(":")[0] for service in services.values() for volume in service["volumes"]}
    volumes = {name: value for name, value in compose["volumes"].items() if name in used}
    return {"version": "3.9", "services": services, "volumes": volumes}
