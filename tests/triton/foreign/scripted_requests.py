"""Requests to models with scripted engines, which generate what the prompt prescribes."""

import json
from typing import Any

from tests.triton.text_client import TextClient, TextResponse
from tests.wire.gateway_server import RunningGateway

ALL = ["llmapi", "llmapi_deltas", "llmapi_once", "org/served-by-vllm"]
BATCHERS = ["ensemble", "tensorrt_llm_bls", "accumulating_bls"]
MOCKS = ["mock_llm", "counting_mock", "barest", "barest_vllm"]


def script(*say: str, **more: Any) -> str:
    return json.dumps({"say": say, **more})


def chat(model: str, *say: str, script_: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    content = script(*say, **(script_ or {}))
    return {"model": model, "messages": [{"role": "user", "content": content}], **more}


async def complete_both_ways(complete: TextClient, body: dict[str, Any]) -> TextResponse:
    """Return the response, after asserting that the whole and the streamed one are equal."""
    whole = await complete(body)
    streamed = await complete({**body, "stream": True, "stream_options": {"include_usage": True}})
    assert (whole.texts, whole.finish_reasons) == (streamed.texts, streamed.finish_reasons)
    assert (whole.usage or {}) == (streamed.usage or {})
    return whole


async def refusal(served: RunningGateway, body: dict[str, Any]) -> tuple[int, str | None, str]:
    path = "/v1/chat/completions" if "messages" in body else "/v1/completions"
    response = await served.http.post(path, json=body)
    error = response.json()["error"]
    return response.status_code, error["param"], error["message"]


def last_inputs(journal: list[dict[str, Any]], model: str) -> dict[str, Any]:
    """Return the inputs of the last request to a model."""
    lines = (line for line in journal if line["model"] == model and not line["id"].startswith("probe/"))
    (*_, last) = (line["inputs"] for line in lines if line["event"] == "received")
    return last
