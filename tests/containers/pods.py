"""Manifests of the chart in podman, which does a part of what Kubernetes does; the tests do some of the rest."""

import copy
import json
import re
import subprocess
from base64 import b64decode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import yaml

VOLUMES = Path("/var/lib/containers/pods")
SERVING = b"\x08\x01"
"""The answer of a gRPC health service: field 1, `status`, is 1."""


def of_kind(manifests: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """The only manifest of a kind."""
    (found,) = (manifest for manifest in manifests if manifest["kind"] == kind)
    return found


def expand_variables(container: dict[str, Any], secret: dict[str, Any]) -> None:
    """Put the values of a container's environment into its arguments, `$(NAME)`, as a kubelet does."""
    values = {}
    for entry in container.get("env", []):
        source = entry.get("valueFrom", {}).get("secretKeyRef")
        values[entry["name"]] = b64decode(secret["data"][source["key"]]).decode() if source else entry["value"]
    if "args" in container:
        container["args"] = [re.sub(r"\$\((\w+)\)", lambda found: values[found[1]], each) for each in container["args"]]


def pod_of(workload: dict[str, Any], secret: dict[str, Any], aliases: Mapping[str, str]) -> dict[str, Any]:
    """Return the first pod of a Deployment or StatefulSet, as its controller makes it, for podman.

    `aliases` gives addresses to names, as the DNS of a cluster does. Left out are the probes, which podman runs with
    systemd alone, and which the tests ask. Podman would start init containers again that have ended well, and does not
    expand arguments. Its volumes would have the owners that the images say, whatever `fsGroup` says: a folder of the
    machine, of VOLUMES, stands for each `emptyDir`, `POD-VOLUME`, and for each claim, by its name.
    """
    template = copy.deepcopy(workload["spec"]["template"])
    name = f"{workload['metadata']['name']}-0"
    spec = template["spec"] | {"restartPolicy": "OnFailure"}
    spec["hostAliases"] = [{"ip": address, "hostnames": [alias]} for alias, address in aliases.items()]
    for claim in workload["spec"].get("volumeClaimTemplates", []):
        volume = claim["metadata"]["name"]
        spec["volumes"].append({"name": volume, "persistentVolumeClaim": {"claimName": f"{volume}-{name}"}})
    for volume in spec["volumes"]:
        claim = volume.pop("persistentVolumeClaim", {"claimName": f"{name}-{volume['name']}"})
        volume.pop("emptyDir", None)
        volume["hostPath"] = {"path": f"{VOLUMES}/{claim['claimName']}", "type": "Directory"}
    for container in spec["containers"]:
        for probe in ("startupProbe", "readinessProbe", "livenessProbe", "lifecycle"):
            container.pop(probe, None)
        expand_variables(container, secret)
    metadata = {"name": name, "labels": template["metadata"]["labels"]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def probe_succeeds(container: dict[str, Any], kind: str, address: str) -> bool:
    """Ask a probe of a container once, as a kubelet does: from outside, by the address of the pod."""
    probe = container[kind]
    timeout = probe.get("timeoutSeconds", 1)
    if "httpGet" in probe:
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        url = f"http://{address}:{ports[probe['httpGet']['port']]}{probe['httpGet']['path']}"
        try:
            return 200 <= httpx.get(url, timeout=timeout, trust_env=False).status_code < 400
        except httpx.TransportError:
            return False
    with grpc.insecure_channel(f"{address}:{probe['grpc']['port']}") as channel:
        try:
            return bool(channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=timeout) == SERVING)
        except grpc.RpcError:
            return False


def make_volumes(pod: dict[str, Any]) -> None:
    """Make the folders of a pod's volumes, where they are missing, writable for its user as `fsGroup` says."""
    for volume in pod["spec"]["volumes"]:
        folder = Path(volume["hostPath"]["path"])
        folder.mkdir(parents=True, exist_ok=True)
        owner = pod["spec"]["securityContext"]["fsGroup"]
        subprocess.run(["chown", "-R", f"{owner}:{owner}", str(folder)], check=True)


@dataclass(frozen=True, slots=True)
class Podman:
    """The command `podman`."""

    folder: Path

    def run(self, *arguments: str, check: bool = True) -> str:
        """Return the output. Raises `AssertionError` with it if the command fails."""
        ran = subprocess.run(["podman", "--cgroup-manager=cgroupfs", *arguments], capture_output=True, text=True)
        assert ran.returncode == 0 or not check, f"podman {' '.join(arguments)}: {ran.stdout}{ran.stderr}"
        return ran.stdout

    def play(self, manifests: list[dict[str, Any]], address: str) -> None:
        """Run the pods of manifests at an address of podman's default network."""
        file = self.folder / f"{manifests[-1]['metadata']['name']}.yaml"
        file.write_text(yaml.safe_dump_all(manifests))
        self.run("kube", "play", "--network", f"podman:ip={address}", str(file))

    def store_secret(self, secret: dict[str, Any]) -> None:
        """Store a Secret in the form in which podman 4.3 reads it."""
        name = secret["metadata"]["name"]
        self.run("secret", "rm", name, check=False)
        file = self.folder / f"{name}.json"
        file.write_text(json.dumps(secret["data"]))
        self.run("secret", "create", name, str(file))

    def inspect(self, container: str) -> dict[str, Any]:
        return dict(json.loads(self.run("container", "inspect", container))[0])

    def process(self, container: str) -> int:
        """The id of a container's first process. Raises `AssertionError` if it does not run."""
        pid = int(self.inspect(container)["State"]["Pid"])
        assert pid > 0, f"{container} does not run: {self.run('logs', '--tail', '20', container, check=False)}"
        return pid

    def containers(self, pod: str) -> Iterator[str]:
        """The names of a pod's containers, without the one that holds its namespaces."""
        for name in self.run("ps", "--all", "--filter", f"pod={pod}", "--format", "{{.Names}}").split():
            if not name.endswith("-infra"):
                yield name
