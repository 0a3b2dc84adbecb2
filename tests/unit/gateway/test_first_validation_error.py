"""The first error ends the check of a body, in whatever container it is: no body makes pydantic write many down.

The bodies are made from the types themselves, so that a field that is new is tried by itself.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import Field, ValidationError, create_model
from starlette.routing import BaseRoute

from gateway.dialects import DIALECTS
from gateway.dialects.openai.wire.chat import CreateChatCompletionRequest
from gateway.http.routes import explain_validation_error
from gateway.http.wire_model import WireModel

MANY = 5000
MOST_ERRORS = 100
"""A body has about fifty fields. Each may have one error."""
WRONG: list[Any] = [None, True, 5, -1.5, "x", [], {}, [[]], {"type": 1}]


def _models() -> dict[str, type[WireModel]]:
    """The type of each route's body by the route's path."""
    routes: list[BaseRoute] = [route for dialect in DIALECTS for router in dialect.routers for route in router.routes]
    fields = {getattr(route, "path", ""): getattr(route, "body_field", None) for route in routes}
    models = {field.field_info.annotation: path for path, field in fields.items() if field is not None}
    return {path: model for model, path in models.items()}


def invalid_values(schema: Any, path: str, definitions: dict[str, Any], depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield values in each of which one container of `schema` holds many wrong entries, and where it is."""
    if depth > 30:
        return
    match schema["type"]:
        case "definitions":
            inner = {part["ref"]: part for part in schema["definitions"]}
            yield from invalid_values(schema["schema"], path, definitions | inner, depth + 1)
        case "definition-ref":
            yield from invalid_values(definitions[schema["schema_ref"]], path, definitions, depth + 1)
        case "model-fields":
            yield f"{path}.*", {f"unknown{i}": i for i in range(MANY)}
            for name, field in schema["fields"].items():
                alias = field.get("validation_alias", name)
                for where, value in invalid_values(field["schema"], f"{path}.{alias}", definitions, depth + 1):
                    yield where, {alias: value}
        case "list" | "set" | "frozenset" | "deque":
            for invalid in WRONG:
                yield f"{path}[]", [invalid] * MANY
            for where, value in invalid_values(
                schema.get("items_schema", {"type": "any"}), f"{path}[]", definitions, depth + 1
            ):
                yield where, [value]
        case "tuple":
            for invalid in WRONG:
                yield f"{path}()", [invalid] * MANY
            for part in schema["items_schema"]:
                for where, value in invalid_values(part, f"{path}()", definitions, depth + 1):
                    yield where, [value]
        case "dict":
            for invalid in WRONG:
                yield f"{path}{{}}", {str(i): invalid for i in range(MANY)}
                yield f"{path}{{}}", {f"no such key {i}": invalid for i in range(MANY)}
            yield f"{path}{{}}", {"x" * 500_000: 1}
            for where, value in invalid_values(
                schema.get("values_schema", {"type": "any"}), f"{path}{{}}", definitions, depth + 1
            ):
                yield where, {"1": value}
        case "tagged-union":
            for choice in schema["choices"].values():
                yield from invalid_values(choice, path, definitions, depth + 1)
        case "union":
            for choice in schema["choices"]:
                yield from invalid_values(
                    choice[0] if isinstance(choice, tuple) else choice, path, definitions, depth + 1
                )
        case "chain":
            for step in schema["steps"]:
                yield from invalid_values(step, path, definitions, depth + 1)
        case "str" | "literal" | "int" | "float" | "bool":
            yield path, "x" * 500_000
            yield path, int("9" * 4000)
        case "any" | "none" | "function-plain":  # nothing within is read
            pass
        case _:
            yield from invalid_values(schema["schema"], path, definitions, depth + 1)


def check(model: type[WireModel]) -> dict[str, int]:
    """The most errors that wrong entries in each container of a model make."""
    error_counts: dict[str, int] = {}
    for path, body in invalid_values(model.__pydantic_core_schema__, "", {}):
        errors = 0
        try:
            model.model_validate(body)
        except ValidationError as invalid:
            errors = invalid.error_count()
            if errors <= MOST_ERRORS:
                sentence = explain_validation_error(invalid.errors(include_url=False, include_input=False)[0])
                assert len(sentence.message) < 1000 and len(sentence.param or "") < 1000, path
        error_counts[path] = max(errors, error_counts.get(path, 0))
    return error_counts


MODELS = _models()


@pytest.mark.parametrize("path", MODELS)
def test_a_container_of_invalid_entries_is_one_error(path: str) -> None:
    many = {where: errors for where, errors in check(MODELS[path]).items() if errors > MOST_ERRORS}
    assert not many, many


def test_the_containers_of_bodies_are_found() -> None:
    chat = {where for where, _ in invalid_values(CreateChatCompletionRequest.__pydantic_core_schema__, "", {})}
    assert {
        ".messages[]",
        ".messages[].content[]",
        ".messages[].content[].image_url.url",
        ".messages[].tool_calls[]",
        ".tools[]",
        ".tools[].function.parameters{}",
        ".stop[]",
        ".stop_token_ids[]",
        ".logit_bias{}",
        ".structured_outputs.choice[]",
        ".structured_outputs.*",
        ".response_format.json_schema.schema{}",
    } <= chat


def test_containers_that_collect_every_error_are_found() -> None:
    """Pydantic's own containers are such."""
    fields: dict[str, Any] = {
        "a_list": list[int],
        "a_dict": dict[str, int],
        "a_set": set[int],
        "a_tuple": tuple[int, ...],
        "nested": dict[str, list[dict[str, int] | int]],
    }
    definitions: dict[str, Any] = {name: (kind | None, None) for name, kind in fields.items()}
    plain: Any = create_model("plain", **definitions)
    error_counts = check(plain)
    assert {where for where, errors in error_counts.items() if errors > MOST_ERRORS} >= {
        ".a_list[]", ".a_dict{}", ".a_tuple()", ".nested{}", ".nested{}[]",
    }  # fmt: skip
    ours: Any = create_model("ours", __base__=WireModel, **definitions)
    assert all(errors <= MOST_ERRORS for errors in check(ours).values())
    # Fields of these names are fields, not the parts of a schema that bear them.
    odd: Any = create_model(
        "odd",
        __base__=WireModel,
        type=(list[int], None),
        metadata=(list[int], None),
        serialization=(dict[str, int], None),
    )
    assert all(errors <= MOST_ERRORS for errors in check(odd).values())
    aliased: Any = create_model("aliased", __base__=WireModel, x=(list[int], Field(alias="schema")))
    assert set(check(aliased)) == {".*", ".schema[]"}
