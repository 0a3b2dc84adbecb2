"""Schemas that become parts of others: what callers may write as references, and what that costs."""

import json
from typing import Any

import pytest

from gateway.errors import InvalidRequest
from gateway.prompting.schema_relocation import relocate_schema

ROOT = "#/$defs/tool0"
NO_URLS = ("//[", "http://\u2100x", "http://[::1")


@pytest.mark.parametrize("no_url", NO_URLS)
@pytest.mark.parametrize("mark", ["", "#", "#a"])
def test_references_that_are_no_urls_stay_unchanged(no_url: str, mark: str) -> None:
    out = {"$ref": no_url + mark}
    assert relocate_schema(out, ROOT, "tools") == out
    within = {"properties": {"a": {"$id": no_url + mark, "properties": {"b": {"$ref": "#"}, "c": {"$ref": "c"}}}}}
    relocated = relocate_schema(within, ROOT, "tools")["properties"]["a"]
    assert relocated == {"properties": {"b": {"$ref": f"{ROOT}/properties/a"}, "c": {"$ref": "c"}}}


@pytest.mark.parametrize("reference", [{"$ref": "#"}, {"$recursiveRef": "#"}])
def test_relocated_references_grow_by_a_bounded_factor(reference: dict[str, str]) -> None:
    def of(name: str, references: int) -> dict[str, Any]:
        return {"properties": {name: {"$id": "http://x/", "allOf": [reference] * references}}}

    relocated = relocate_schema(of("a", 4_000), ROOT, "tools")
    assert relocated["properties"]["a"]["allOf"][-1] == {"$ref": f"{ROOT}/properties/a"}
    assert relocate_schema({"allOf": [{"$ref": "#/$defs/b"}] * 16_000}, ROOT, "tools")["allOf"][-1] == {
        "$ref": f"{ROOT}/$defs/b"
    }
    assert len(json.dumps(relocate_schema(of("\1" * 500, 40), ROOT, "tools"))) < 100_000
    with pytest.raises(InvalidRequest, match="references") as raised:
        relocate_schema(of("\1" * 500, 16_000), ROOT, "response_format")
    assert raised.value.param == "response_format"
