"""The chart, rules and dashboards agree with the code. `make chart` checks them with helm and Prometheus as well."""

import json
import re
import shlex
import tomllib
from typing import Any

import jsonschema
import pytest
import yaml

from backends.diffusion import metrics as diffusion_metrics
from backends.embedding import metrics as embedding_metrics
from backends.llm import metrics as llm_metrics
from backends.transcription import metrics as transcription_metrics
from gateway.observability.telemetry import Metrics
from gateway.settings import Settings
from tests.architecture.source_tree import ROOT
from tests.deploy.dashboards import Panel, load_dashboards, load_panels, metric_names
from tests.deploy.triton_metrics import SEEN, WITH_A_GPU, WITH_OTHER_ENGINES

CHART = ROOT / "deploy/chart"
TEMPLATES = {path.name: path.read_text() for path in sorted((CHART / "templates").iterdir())}
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
EXAMPLES = {path.name: yaml.safe_load(path.read_text()) for path in sorted((CHART / "ci").glob("*.yaml"))}
RULES: dict[str, Any] = yaml.safe_load((ROOT / "deploy/prometheus/rules.yaml").read_text())
PANELS = load_panels()
SETTINGS = {f"TRITONIC_{name.upper()}" for name in Settings.model_fields}
RECORDED = {rule["record"] for group in RULES["groups"] for rule in group["rules"] if "record" in rule}
validator = jsonschema.Draft7Validator(SCHEMA)


def gateway_metrics() -> set[str]:
    """The names of the samples of a gateway. Those with labels appear with their first request."""
    metrics = Metrics()
    for family in vars(metrics).values():
        if getattr(family, "_labelnames", ()):
            family.labels(*family._labelnames)
    lines = metrics.exposition().decode().splitlines()
    return {re.split(r"[{ ]", line)[0] for line in lines if not line.startswith("#")}


EXPORTED = gateway_metrics() | SEEN | WITH_A_GPU | WITH_OTHER_ENGINES


def merged(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`values` with `changes`, as helm merges them."""
    result = dict(values)
    for key, change in changes.items():
        nested = isinstance(change, dict) and isinstance(values.get(key), dict)
        result[key] = merged(values[key], change) if nested else change
    return result


@pytest.mark.parametrize("panel", PANELS, ids=str)
def test_a_panel_has_a_unit_and_queries_on_metrics_that_exist(panel: Panel) -> None:
    assert panel.title and panel.unit and panel.description and panel.targets
    for query, legend in panel.targets:
        names = metric_names(query)
        assert legend and names and names <= EXPORTED | RECORDED, names - EXPORTED - RECORDED


def test_dashboards_have_ids_of_their_own_and_one_data_source() -> None:
    dashboards = load_dashboards()
    assert len({board["uid"] for board in dashboards.values()}) == len(dashboards) >= 4
    for board in dashboards.values():
        assert [variable["name"] for variable in board["templating"]["list"]] == ["datasource"]
        assert {panel["datasource"]["uid"] for panel in board["panels"]} == {"${datasource}"}
        assert len({panel["title"] for panel in board["panels"]}) == len(board["panels"])
        places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in board["panels"]}
        assert len(places) == len(board["panels"])


def test_every_metric_is_in_a_dashboard() -> None:
    """Buckets count for their histogram."""
    shown = {name for panel in PANELS for query, _ in panel.targets for name in metric_names(query)}
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown}
    families = {re.sub(r"_(bucket|sum|count|created)$", "", name) for name in gateway_metrics()}
    backends = (llm_metrics, diffusion_metrics, embedding_metrics, transcription_metrics)
    ours = {name for module in backends for table in (module.GAUGES, module.COUNTERS) for name, _ in table.values()}
    shown = {name for name in shown if not name.startswith(("nv_", "tritonic:"))} - WITH_OTHER_ENGINES
    assert {name.removesuffix("_total") for name in (families | ours) - WITH_OTHER_ENGINES} == {
        name.removesuffix("_total") for name in shown
    }


def test_rules_read_metrics_that_exist() -> None:
    rules = [rule for group in RULES["groups"] for rule in group["rules"]]
    for rule in rules:
        names = metric_names(rule["expr"])
        assert names and names <= EXPORTED | RECORDED, names - EXPORTED - RECORDED
    alerts = [rule for rule in rules if "alert" in rule]
    tested = (ROOT / "deploy/prometheus/rules_test.yaml").read_text()
    for alert in alerts:
        assert alert["labels"]["severity"] in ("warning", "critical") and alert["annotations"]["summary"]
        # Once silent, and once firing.
        assert len(re.findall(rf"alertname: {alert['alert']}\b", tested)) >= 2


def test_the_names_of_metrics_in_a_query_are_found() -> None:
    query = 'sum by (le, a) (rate(x_bucket{a="b_c",d!~"e|f"}[5m])) / on (a) clamp_min(y:z, 0.1) or vector(0) > 1e6'
    assert metric_names(query) == {"x_bucket", "y:z"}


@pytest.mark.parametrize("name", [*EXAMPLES, "defaults"])
def test_values_suit_the_schema(name: str) -> None:
    validator.validate(merged(VALUES, EXAMPLES.get(name, {})))


def objects(schema: Any) -> list[dict[str, Any]]:
    """All schemas of objects within a schema."""
    if isinstance(schema, list):
        return [found for part in schema for found in objects(part)]
    if not isinstance(schema, dict):
        return []
    nested = [found for part in schema.values() for found in objects(part)]
    return [schema, *nested] if isinstance(schema.get("properties"), dict) and "type" in schema else nested


def test_the_schema_refuses_unknown_values_everywhere() -> None:
    assert len(objects(SCHEMA)) > 30
    for schema in objects(SCHEMA):
        assert schema["additionalProperties"] is False, schema


@pytest.mark.parametrize(
    "change",
    [
        {"gatway": {}},
        {"gateway": {"replicas": 0}},
        {"gateway": {"replicas": "2"}},
        {"gateway": {"settings": {"TRITONIC_NONE": "1"}}},
        {"gateway": {"settings": {"TRITONIC_TASKS": "postgresql://user:password@host/name"}}},
        {"gateway": {"externalTritons": ["triton"]}},
        {"postgres": {"url": "mysql://host"}},
        {"tritonGroups": [{"name": "a", "models": {"source": "hub"}}]},
        {"tritonGroups": [{"name": "a-name-that-is-too-long-for-a-pod"}]},
        {"tritonDefaults": {"sharedMemory": "much"}},
        {"otel": {"endpoint": "http://collector:4318/"}},
    ],
    ids=str,
)
def test_the_schema_refuses_wrong_values(change: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(merged(VALUES, change))


def test_templates_and_values_know_the_settings_of_the_gateway() -> None:
    """A setting is either one that the chart sets itself, or one of `gateway.settings`, which the schema lists."""
    listed = set(SCHEMA["properties"]["gateway"]["properties"]["settings"]["propertyNames"]["enum"])
    own = set(re.findall(r"\bTRITONIC_[A-Z_]+", TEMPLATES["gateway.yaml"])) - {"TRITONIC_HANG_TIMEOUT"}
    # Fixed by the image, since ports and mounts of the manifests go with them.
    image = set(re.findall(r"\bTRITONIC_[A-Z_]+(?==)", (ROOT / "docker/gateway.Dockerfile").read_text()))
    assert own <= SETTINGS and image == {"TRITONIC_HOST", "TRITONIC_PORT", "TRITONIC_STATE"}
    assert not listed & own
    assert listed | own | image == SETTINGS


@pytest.mark.parametrize("manifest", ["chart/templates/triton.yaml", "kserve/servingruntime.yaml"])
def test_tritons_start_as_in_the_container(manifest: str) -> None:
    script = (ROOT / "docker/triton-start").read_text()
    command = re.search(r"^exec (tritonserver .*?) \"\$@\"$", script.replace("\\\n", ""), re.M | re.S)
    assert command
    expected = shlex.split(command[1].replace("$secret", "$(TRITONIC_TRITON_SECRET)"))
    text = (ROOT / "deploy" / manifest).read_text().split(" - tritonserver\n")[1]
    arguments = re.match(r"(?: +- --\S.*\n)+", text)
    assert arguments
    repository, *others = (line.strip().removeprefix("- ") for line in arguments[0].splitlines())
    assert repository.startswith("--model-repository=")
    assert ["tritonserver", "--model-repository=/models/repository", *others] == expected


def test_versions_are_those_of_the_project() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == version


def test_every_value_is_used() -> None:
    text = "\n".join(TEMPLATES.values())
    for name in (*VALUES, *VALUES["gateway"], *VALUES["tritonDefaults"], *VALUES["networkPolicy"]):
        assert re.search(rf"\.{name}\b", text), name


def test_images_have_no_registry() -> None:
    """The files name no registry but NVIDIA's, which docker/ uses as well. Values of an installation name others."""
    files = [*(CHART / "ci").glob("*.yaml"), CHART / "values.yaml", *(ROOT / "deploy/kserve").glob("*.yaml")]
    found = {name for path in files for name in re.findall(r"(?:repository|image): \"?([\w./-]+)", path.read_text())}
    assert {name.split("/")[0] for name in found if "/" in name} == {"nvcr.io"}
