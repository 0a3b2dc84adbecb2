"""The manifests that helm renders do what docs/kubernetes.md says."""

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from gateway.settings import Settings
from tests.deploy.dashboards import ROOT
from tests.deploy.helm import EXAMPLES, RenderError, find_helm, render

pytestmark = pytest.mark.skipif(find_helm() is None, reason="helm is not installed: `make chart` fetches it")
CPU, GPU, GROUPS = (next(path for path in EXAMPLES if path.stem == name) for name in ("cpu", "gpu", "groups"))


@pytest.fixture(scope="module", params=[*EXAMPLES, None], ids=lambda path: path.stem if path else "defaults")
def manifests(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    return render(request.param)


@pytest.fixture(scope="module")
def groups() -> list[dict[str, Any]]:
    return render(GROUPS)


def of_kind(manifests: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    return {manifest["metadata"]["name"]: manifest for manifest in manifests if manifest["kind"] == kind}


def pods(manifests: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for manifest in manifests:
        if manifest["kind"] in ("Deployment", "StatefulSet"):
            yield manifest["spec"]["template"]["spec"]


def containers(manifests: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for pod in pods(manifests):
        yield from (*pod.get("initContainers", []), *pod["containers"])


def environment(manifests: list[dict[str, Any]]) -> dict[str, Any]:
    """The variables of the gateway: values, or the references to secrets."""
    (gateway,) = (container for container in containers(manifests) if container["name"] == "gateway")
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in gateway["env"]}


def settings_of(manifests: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings that a gateway of these manifests reads."""
    for name, value in environment(manifests).items():
        if name != "TRITONIC_MODELS_FILE":  # the file of the pod
            monkeypatch.setenv(name, value if isinstance(value, str) else "")
    return Settings()


def test_pods_and_containers_have_the_fewest_rights(manifests: list[dict[str, Any]]) -> None:
    assert list(pods(manifests))
    for pod in pods(manifests):
        security = pod["securityContext"]
        assert security["runAsNonRoot"] and security["runAsUser"] >= 1000
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
    for container in containers(manifests):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["requests"].keys() >= {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]


def test_every_volume_that_is_mounted_exists(manifests: list[dict[str, Any]]) -> None:
    for manifest in manifests:
        if manifest["kind"] in ("Deployment", "StatefulSet"):
            pod = manifest["spec"]["template"]["spec"]
            volumes = {volume["name"] for volume in pod["volumes"]}
            volumes |= {claim["metadata"]["name"] for claim in manifest["spec"].get("volumeClaimTemplates", [])}
            for container in (*pod.get("initContainers", []), *pod["containers"]):
                assert {mount["name"] for mount in container["volumeMounts"]} <= volumes


def test_every_secret_that_the_chart_names_as_its_own_has_the_key(manifests: list[dict[str, Any]]) -> None:
    stored = of_kind(manifests, "Secret")
    for container in containers(manifests):
        for entry in container.get("env", []):
            reference = entry.get("valueFrom", {}).get("secretKeyRef")
            if reference and reference["name"].startswith("release"):
                assert reference["key"] in stored[reference["name"]]["data"]


def test_the_gateway_accepts_its_environment(manifests: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITONIC_RATE_LIMITS_STORE", "redis://valkey")
    known = {f"TRITONIC_{name.upper()}" for name in Settings.model_fields}
    names = {name for name in environment(manifests) if name.startswith("TRITONIC_")}
    assert "TRITONIC_TRITON_URLS" in names and names <= known
    assert settings_of(manifests, monkeypatch).triton_urls


def test_the_gateway_knows_each_pod_that_a_group_may_have(
    groups: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A group that scales counts with its `maxReplicas`."""
    services = of_kind(groups, "Service")
    expected = []
    for name, count in (("llm", 3), ("images", 2), ("embedding", 1)):
        service = f"release-tritonic-triton-{name}"
        assert services[service]["spec"]["clusterIP"] == "None"
        assert of_kind(groups, "StatefulSet")[service]["spec"]["serviceName"] == service
        expected += [f"{service}-{index}.{service}.serving.svc.cluster.local:8001" for index in range(count)]
    expected.append("chat-predictor.models.svc.cluster.local:8001")
    monkeypatch.setenv("TRITONIC_RATE_LIMITS_STORE", "redis://valkey")
    assert settings_of(groups, monkeypatch).triton_urls == expected


def test_numbers_of_settings_are_written_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    assert environment(render(CPU))["TRITONIC_MAX_BODY_BYTES"] == "67108864"
    rendered = render(
        settings=['gateway.settings={"TRITONIC_REQUEST_TIMEOUT": 0.5, "TRITONIC_MEDIA_ALLOW_PRIVATE": true}']
    )
    settings = settings_of(rendered, monkeypatch)
    assert settings.request_timeout == 0.5 and settings.media_allow_private


def test_without_api_keys_the_names_of_the_service_are_allowed_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = settings_of(render(CPU), monkeypatch).allowed_hosts
    name = "release-tritonic-gateway"
    assert hosts == [
        name,
        f"{name}.serving",
        f"{name}.serving.svc",
        f"{name}.serving.svc.cluster.local",
        "chat.example.com",
        "ai.example.com",
    ]


def test_with_api_keys_no_host_is_listed() -> None:
    assert "TRITONIC_ALLOWED_HOSTS" not in environment(render(GPU))


def test_triton_is_reached_by_gateways_alone(groups: list[dict[str, Any]]) -> None:
    policy = of_kind(groups, "NetworkPolicy")["release-tritonic-triton"]["spec"]
    grpc, metrics = policy["ingress"]
    assert grpc["ports"] == [{"protocol": "TCP", "port": "grpc"}]
    (peer,) = grpc["from"]
    assert peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "gateway"
    assert "namespaceSelector" not in peer
    assert metrics["ports"] == [{"protocol": "TCP", "port": "metrics"}] and metrics["from"]
    for service in of_kind(groups, "Service").values():
        if "triton-" in service["metadata"]["name"]:
            assert service["spec"].get("type", "ClusterIP") == "ClusterIP"


@pytest.mark.parametrize("policy", ["gateway", "triton", "triton-llm"])
def test_no_policy_opens_private_addresses_to_the_web_rule(policy: str, groups: list[dict[str, Any]]) -> None:
    """The metadata service of a cloud, 169.254.169.254, gives credentials to whoever asks."""
    rules = of_kind(groups, "NetworkPolicy")[f"release-tritonic-{policy}"]["spec"]["egress"]
    blocks = [peer["ipBlock"] for rule in rules for peer in rule.get("to", []) if "ipBlock" in peer]
    for block in blocks:
        assert block["cidr"] == "169.254.20.10/32" or block["except"]
        if block["cidr"] == "0.0.0.0/0":
            assert {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"} <= set(block["except"])


def test_the_gpus_of_a_group_are_limits_of_its_pods(groups: list[dict[str, Any]]) -> None:
    limits = {
        name: stateful["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
        for name, stateful in of_kind(groups, "StatefulSet").items()
    }
    assert limits["release-tritonic-triton-llm"]["nvidia.com/gpu"] == 4
    assert limits["release-tritonic-triton-images"]["nvidia.com/mig-3g.40gb"] == 1
    assert limits["release-tritonic-triton-embedding"].keys() == {"memory"}


def test_models_come_from_where_the_group_says(groups: list[dict[str, Any]]) -> None:
    arguments = {}
    for name, stateful in of_kind(groups, "StatefulSet").items():
        pod = stateful["spec"]["template"]["spec"]
        (repository,) = (a for a in pod["containers"][0]["args"] if a.startswith("--model-repository="))
        prepares = [container["name"] for container in pod.get("initContainers", [])]
        arguments[name.removeprefix("release-tritonic-triton-")] = (repository.split("=")[1], prepares)
    assert arguments == {
        "llm": ("s3://https://minio.storage:9000/models/llm", []),
        "images": ("/models/repository", ["fetch"]),
        "embedding": ("/models/repository", ["build-0"]),
    }


def test_rules_and_dashboards_are_those_of_the_project(groups: list[dict[str, Any]]) -> None:
    (rule,) = of_kind(groups, "PrometheusRule").values()
    assert "{{ $labels.model }}" in str(rule["spec"])
    boards = {key for board in of_kind(groups, "ConfigMap").values() for key in board["data"] if key.endswith(".json")}
    assert boards == {"gateway.json", "triton.json", "models.json", "gpu.json"}
    monitors = of_kind(groups, "ServiceMonitor")
    ports = {name: monitor["spec"]["endpoints"][0]["port"] for name, monitor in monitors.items()}
    assert ports == {"release-tritonic-gateway": "http", "release-tritonic-triton": "metrics"}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("gateway.replicas=2", "Several gateways share their tasks in Postgres"),
        ('gateway.settings={"TRITONIC_NONE": 1}', "invalid propertyName 'TRITONIC_NONE'"),
        ('gateway.settings={"TRITONIC_API_KEYS": "sk-in-plain-sight"}', "invalid propertyName 'TRITONIC_API_KEYS'"),
        ("gateway.replicaz=1", "additional properties 'replicaz' not allowed"),
        ('gateway={"workers": 2, "settings": {"TRITONIC_RATE_LIMITS": "1/day"}}', "Several workers count rate limits"),
        ("tritonGroups=[]", "The gateway needs a Triton"),
        ('tritonGroups=[{"name": "Chat"}]', "does not match pattern"),
        ('tritonGroups=[{"name": "chat"}]', 'group "chat" builds nothing'),
        ('tritonGroups=[{"name": "chat", "models": {"source": "fetch"}}]', 'group "chat" needs models.url'),
        ('tritonGroups=[{"name": "chat", "models": {"source": "claim"}}]', 'group "chat" needs models.existingClaim'),
        ('tritonGroups=[{"name": "chat", "gpu": 1}]', "additional properties 'gpu' not allowed"),
    ],
)
def test_values_that_could_not_serve_are_refused_with_the_reason(setting: str, message: str) -> None:
    with pytest.raises(RenderError) as error:
        render(settings=[setting])
    assert message in str(error.value)


def test_several_gateways_need_a_bucket_and_no_volume() -> None:
    several = ["gateway.replicas=2", 'postgres.url="postgresql://user:password@postgres/tasks"']
    with pytest.raises(RenderError, match=r"set files\.url"):
        render(settings=several)
    several.append('files.url="s3://files"')
    with pytest.raises(RenderError, match=r"persistence\.enabled=false"):
        render(settings=several)
    manifests = render(settings=[*several, "gateway.persistence.enabled=false"])
    assert "release-tritonic-gateway" in of_kind(manifests, "PodDisruptionBudget")
    assert not of_kind(manifests, "PersistentVolumeClaim")


def test_a_gateway_can_stand_before_tritons_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the example of deploy/kserve says."""
    manifests = render(settings=["tritonGroups=[]", 'gateway.externalTritons=["chat-predictor.models.svc:8001"]'])
    assert settings_of(manifests, monkeypatch).triton_urls == ["chat-predictor.models.svc:8001"]
    assert not of_kind(manifests, "StatefulSet")


def test_scaling_uses_the_metrics_of_the_adapter(groups: list[dict[str, Any]]) -> None:
    adapter = yaml.safe_load((ROOT / "deploy/prometheus/adapter.yaml").read_text())
    offered = {rule["name"]["as"] for rule in adapter["rules"]["custom"]}
    used = {
        metric["pods"]["metric"]["name"]
        for scaler in of_kind(groups, "HorizontalPodAutoscaler").values()
        for metric in scaler["spec"]["metrics"]
        if metric["type"] == "Pods"
    }
    assert used == offered
