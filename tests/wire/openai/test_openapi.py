"""The OpenAPI document is valid, and correct where fuzzing would not notice an error."""

import json
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR

from gateway.app import create_app
from gateway.settings import Settings

ASKING = {"200", "400", "404", "408", "413", "415", "429", "500", "502", "503", "504"}
DRAWING = ASKING | {"507"}
READING = {"200", "400", "404", "500", "503"}
STATUSES = {
    "/v1/chat/completions": DRAWING,
    "/v1/completions": ASKING,
    "/v1/embeddings": ASKING,
    "/v1/audio/speech": ASKING,
    "/v1/audio/voices": {"200", "500"},
    "/v1/images/generations": DRAWING,
    "/v1/images/edits": DRAWING,
    "/v1/images/upscales": DRAWING,
    "/v1/images/variations": DRAWING,
    "/v1/images/face-swaps": DRAWING,
    "/v1/audio/transcriptions": DRAWING,
    "/v1/audio/translations": DRAWING,
    "post /v1/videos": DRAWING,
    "get /v1/videos": READING,
    "/v1/videos/edits": DRAWING,
    "/v1/videos/extensions": DRAWING,
    "/v1/videos/{video_id}": READING,
    "/v1/videos/{video_id}/remix": DRAWING,
    "/v1/videos/{video_id}/content": {"200", "206", "304", "400", "404", "416", "500", "502", "503", "507"},
    "/v1/models": {"200", "500"},
    "/v1/models/{model_id}": {"200", "404", "500"},
    "/{platform}/v1/chat/completions": DRAWING,
    "/{platform}/v1/audio/speech": ASKING,
    "/{platform}/v1/audio/voices": {"200", "404", "500"},
    "/{platform}/v1/images/face-swaps": DRAWING,
    "/{platform}/v1/images/generations": DRAWING,
    "/{platform}/v1/images/edits": DRAWING,
    "/{platform}/v1/images/upscales": DRAWING,
    "/{platform}/v1/audio/transcriptions": DRAWING,
    "/{platform}/v1/audio/translations": DRAWING,
    "/{platform}/v1/audio/tasks": READING,
    "/{platform}/v1/audio/tasks/{task_id}": READING,
    "/{platform}/v1/images": READING,
    "/{platform}/v1/images/{task_id}": READING,
    "post /{platform}/v1/videos": DRAWING,
    "get /{platform}/v1/videos": READING,
    "/{platform}/v1/videos/{task_id}": READING,
    "/{platform}/v1/videos/{task_id}/remix": DRAWING,
    "/{platform}/v1/videos/{task_id}/content": {"200", "206", "304", "400", "404", "416", "500", "502", "503", "507"},
    **dict.fromkeys(
        (
            "/mj/insight-face/swap",
            "/mj/submit/action",
            "/mj/submit/blend",
            "/mj/submit/change",
            "/mj/submit/describe",
            "/mj/submit/edits",
            "/mj/submit/imagine",
            "/mj/submit/modal",
            "/mj/submit/shorten",
            "/mj/submit/simple-change",
            "/mj/submit/upload-discord-images",
            "/mj/submit/video",
        ),
        DRAWING,
    ),
    **dict.fromkeys(
        (
            "/mj/task/list",
            "/mj/task/list-by-condition",
            "/mj/task/list-by-ids",
            "/mj/task/queue",
            "/mj/task/{task_id}/cancel",
            "/mj/task/{task_id}/fetch",
            "/mj/task/{task_id}/image-seed",
        ),
        READING,
    ),
    "/mj/image/{task_id}": {"200", "403", "404"},
    "/files/{file}": {"200", "206", "304", "403", "404", "416", "503"},
    "/health/live": {"200"},
    "/health/ready": {"200", "503"},
    "/metrics": {"200"},
}


def document(**settings: Any) -> dict[str, Any]:
    return create_app(Settings(triton_urls=["127.0.0.1:1"], **settings)).openapi()


DOCUMENT = document()
GUARDED = document(api_keys=["sk-x"])


def operations(of: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in of["paths"].items():
        for operation in methods.values():
            yield path, operation


def validate(value: Any, schema: dict[str, Any]) -> None:
    jsonschema_rs.Draft202012Validator({**schema, "components": DOCUMENT["components"]}).validate(value)


@pytest.mark.parametrize("of", [DOCUMENT, GUARDED], ids=["open", "guarded"])
def test_the_document_is_valid_openapi(of: dict[str, Any]) -> None:
    OPENAPI_31_VALIDATOR.validate(of)
    references = set()

    def walk(node: Any) -> None:
        for value in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            walk(value)
        if isinstance(node, dict) and isinstance(node.get("$ref"), str):
            references.add(node["$ref"].removeprefix("#/components/schemas/"))

    walk(of)
    # Nothing is pointed to that is not there, and nothing is there that is not pointed to.
    assert references == set(of["components"]["schemas"])


def test_every_route_is_there_with_the_statuses_it_has() -> None:
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            expected = STATUSES.get(path) or STATUSES[f"{method} {path}"]
            assert set(operation["responses"]) == expected, path
    assert set(DOCUMENT["paths"]) == {path.rpartition(" ")[2] for path in STATUSES}


def test_keys_are_asked_for_where_they_are_set() -> None:
    assert "securitySchemes" not in DOCUMENT["components"]
    assert not any("security" in operation for _, operation in operations(DOCUMENT))
    (scheme,) = GUARDED["components"]["securitySchemes"].values()
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    for path, operation in operations(GUARDED):
        guarded = path.startswith(("/v1", "/{platform}", "/mj")) and path != "/mj/image/{task_id}"  # it has a signature
        assert ("security" in operation) == ("401" in operation["responses"]) == guarded, path


def test_internal_names_are_not_in_the_document() -> None:
    text = json.dumps(DOCUMENT, ensure_ascii=False)
    assert "·" not in text and "HTTPValidationError" not in text and '"422"' not in text


def test_every_example_is_an_instance_of_its_schema() -> None:
    count = 0
    for _, operation in operations(DOCUMENT):
        for response in operation["responses"].values():
            content = response.get("content", {}).get("application/json", {})
            if "example" in content:
                validate(content["example"], content["schema"])
                count += 1
    for schema in DOCUMENT["components"]["schemas"].values():
        for example in schema.get("examples", ()):
            validate(example, schema)
            count += 1
    assert count > 35


@pytest.mark.parametrize("path", ["/v1/images/generations", "/v1/images/edits", "/v1/images/variations"])
def test_image_routes_describe_json_and_forms(path: str) -> None:
    operation = DOCUMENT["paths"][path]["post"]
    assert set(operation["requestBody"]["content"]) == {"application/json", "multipart/form-data"}
    form = operation["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert form["properties"]["image"] == {"type": "string", "format": "binary"}
    content = operation["responses"]["200"]["content"]["text/event-stream"]
    name, data, *_ = content["example"].split("\n")
    validate({"data": data.removeprefix("data: ")}, content["schema"])
    (kind,) = [
        ref["$ref"].rsplit("/", 1)[1]
        for ref in content["schema"]["properties"]["data"]["anyOf"][1]["contentSchema"]["anyOf"]
        if "Completed" in ref["$ref"]
    ]
    event = json.loads(data.removeprefix("data: "))
    assert name == f"event: {event['type']}"
    validate(event, {"$ref": f"#/components/schemas/{kind}"})


def test_streams_are_described_event_by_event() -> None:
    for path, kind in (("/v1/chat/completions", "Chat"), ("/v1/completions", "")):
        content = DOCUMENT["paths"][path]["post"]["responses"]["200"]["content"]["text/event-stream"]
        assert content["example"].endswith("\n\ndata: [DONE]\n\n")
        event = content["example"].split("\n\n")[0].removeprefix("data: ")
        validate({"data": event}, content["schema"])
        validate(json.loads(event), {"$ref": f"#/components/schemas/Create{kind}CompletionStreamResponse"})


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("Message", {"role": "user"}),
        ("Message", {"role": "tool", "content": None}),
        ("ContentPart", {"type": "text"}),
        ("ContentPart", {"type": "text", "image_url": "https://a.example/b.png"}),
        ("ContentPart", {"type": "file", "file": {"filename": "a.pdf"}}),
        ("ContentPart", {"type": "video_url"}),
        ("ResponseFormat", {"type": "json_schema"}),
        ("ResponseFormat", {"type": "json_schema", "json_schema": {"name": "x"}}),
        ("CreateChatCompletionRequest", {"messages": [{"role": "user", "content": "x"}]}),
        ("CreateChatCompletionRequest", {"stream_options": {"include_usage": True}}),
        ("CreateChatCompletionRequest", {"functions": [{}]}),
        ("CreateCompletionRequest", {"prompt": [1, "a"]}),
        ("CreateCompletionRequest", {"suffix": "x"}),
        ("CreateEmbeddingRequest", {"input": []}),
        ("CreateSpeechRequest", {"input": ""}),
        ("CreateSpeechRequest", {"voice": {}}),
        ("CreateSpeechRequest", {"speed": 5}),
        ("CreateImageRequest", {"n": 0}),
        ("CreateImageRequest", {"size": "1024"}),
        ("CreateImageRequest", {"prompt": ""}),
        ("CreateImageEditRequest", {"image": []}),
        ("CreateImageEditRequest", {"image": [7]}),
    ],
)
def test_refused_bodies_do_not_match_the_schema(name: str, body: dict[str, Any]) -> None:
    requests: dict[str, dict[str, Any]] = {
        "CreateChatCompletionRequest": {"model": "m", "messages": [{"role": "user", "content": "x"}]},
        "CreateCompletionRequest": {"model": "m", "prompt": "x"},
        "CreateEmbeddingRequest": {"model": "m", "input": "x"},
        "CreateSpeechRequest": {"model": "m", "input": "x", "voice": {"id": "v"}},
        "CreateImageRequest": {"prompt": "x"},
        "CreateImageEditRequest": {"prompt": "x", "image": "eA=="},
    }
    if valid := requests.get(name):
        validate(valid, {"$ref": f"#/components/schemas/{name}"})
        body = {key: value for key, value in {**valid, **body}.items() if body.keys() != {"messages"} or key in body}
    with pytest.raises(jsonschema_rs.ValidationError):
        validate(body, {"$ref": f"#/components/schemas/{name}"})
