"""Valid and invalid requests generated from the OpenAPI document. Every response must be documented there."""

from typing import Any

import schemathesis
from schemathesis.config import SchemathesisConfig

from gateway.app import create_app
from gateway.settings import Settings
from tests.fuzz.fuzzing import FUZZED_MODELS, TEXT_MODELS, hypothesis_settings
from tests.wire.background_gateway import BackgroundGateway
from tests.wire.openai.conformance import check_response
from tests.wire.platform.conformance import check_response as platform_conforms

MODEL_PATH = "/v1/models/{model_id}"


def document() -> Any:
    """Return the gateway's document, changed so that requests name existing models."""
    openapi = create_app(Settings()).openapi()
    schemas = openapi["components"]["schemas"]
    for name, schema in schemas.items():
        if name.endswith("Request") and "model" in schema.get("properties", {}):
            schema["properties"]["model"] = {"type": "string", "enum": [model.name for model in FUZZED_MODELS]}
    for name in ("CreateChatCompletionRequest", "CreateCompletionRequest"):
        schemas[name]["properties"]["model"] = {"type": "string", "enum": TEXT_MODELS}
    schemas["CreateEmbeddingRequest"]["properties"]["model"] = {"const": "vectors"}
    schemas["CreateSpeechRequest"]["properties"]["model"] = {"const": "speaker"}
    openapi["paths"][MODEL_PATH]["get"]["parameters"][0]["schema"]["enum"] = [model.name for model in FUZZED_MODELS]
    for name, schema in schemas.items():
        if name.endswith(("ImageRequest", "ImageEditRequest", "ImageVariationRequest")):
            schema["properties"]["model"] = {"const": "shapes"}
            schema["properties"].pop("async", None)
        if name.endswith("ImageUpscaleRequest"):
            schema["properties"]["model"] = {"const": "larger"}
            schema["properties"].pop("async", None)
        if name.endswith("VideoRequest"):
            schema["properties"]["model"] = {"const": "film"}
            if "video" in schema["properties"]:
                schema["properties"]["video"] = {"type": "string"}  # there is no task that an id could name
    tasks = [path for path in openapi["paths"] if "{video_id}" in path or "{task_id}" in path]
    for path in {*tasks, *(path for path in openapi["paths"] if path.endswith("}") and path != MODEL_PATH)}:
        del openapi["paths"][path]  # files and tasks that do not exist have no response but 403 and 404
    for path, methods in openapi["paths"].items():
        for operation in methods.values():
            parameters = operation.get("parameters", [])
            # There is no task that `after` could name.
            operation["parameters"] = [
                parameter for parameter in parameters if parameter["name"] not in ("async", "after")
            ]
            forms = operation.get("requestBody", {}).get("content", {}).get("multipart/form-data")
            if forms:
                name = "film" if "/videos" in path else "larger" if "/upscales" in path else "shapes"
                forms["schema"]["properties"]["model"] = {"const": name}
                forms["schema"]["properties"].pop("async", None)
            if path.startswith("/{platform}/"):
                operation["parameters"][0]["schema"] = {"const": "tritonic"}
    # A schema cannot express which fields exclude each other. Requests with all of them would always be refused.
    for name in ("guided_json", "guided_regex", "guided_choice", "guided_grammar", "structured_outputs"):
        del schemas["CreateChatCompletionRequest"]["properties"][name]
    schemas["CreateCompletionRequest"]["properties"]["best_of"] = {"type": "null"}
    schemas["CreateEmbeddingRequest"]["properties"]["dimensions"] = {"type": "null"}
    for schema in schemas.values():
        schema.pop("examples", None)  # the examples name other models
    config = SchemathesisConfig(seed=1)
    config.projects.default.max_stream_events = 100_000
    # A request that matches the schema may contradict itself. It must be refused with 400. A dialect may have a field
    # of another name for the model, which then is not found.
    config.projects.default.checks.positive_data_acceptance.expected_statuses = ["200", "400", "404"]
    return schemathesis.openapi.from_dict(openapi, config=config)


@document().parametrize()
@hypothesis_settings(15)
def test_every_response_is_documented(gateway: BackgroundGateway, case: schemathesis.Case) -> None:
    response = case.call(base_url=gateway.url)
    case.validate_response(response)
    names_model = isinstance(case.body, dict) and "model" in case.body
    if names_model or case.operation.path == MODEL_PATH:
        assert response.status_code != 404 or (case.meta and case.meta.generation.mode.is_negative)
    content_type = ", ".join(response.headers["content-type"])
    for check in (check_response, platform_conforms):
        check(case.operation.path, response.status_code, content_type, response.content)
