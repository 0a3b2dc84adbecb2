"""Asking models whose engines are scripts, which say what the prompt tells them."""

import json
from typing import Any

from tests.triton.asking import Ask, Said
from tests.wire.gateway_server import RunningGateway

ALL = ["llmapi", "llmapi_deltas", "llmapi_once", "org/served-by-vllm"]
BATCHERS = ["ensemble", "tensorrt_llm_bls", "accumulating_bls"]
MOCKS = ["mock_llm", "counting_mock", "barest", "barest_vllm"]


def script(*say: str, **more: Any) -> str:
    return json.dumps({"say": say, **more})


def chat(model: str, *say: str, script_: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    content = script(*say, **(script_ or {}))
    return {"model": model, "messages": [{"role": "user", "content": content}], **more}


async def both(ask: Ask, body: dict[str, Any]) -> Said:
    """What is said whole, and streamed, which has to be the same."""
    whole = await ask(body)
    streamed = await ask({**body, "stream": True, "stream_options": {"include_usage": True}})
    assert (whole.texts, whole.reasons) == (streamed.texts, streamed.reasons)
    assert (whole.usage or {}) == (streamed.usage or {})
    return whole


async def refusal(served: RunningGateway, body: dict[str, Any]) -> tuple[int, str | None, str]:
    path = "/v1/chat/completions" if "messages" in body else "/v1/completions"
    response = await served.http.post(path, json=body)
    error = response.json()["error"]
    return response.status_code, error["param"], error["message"]


def asked(journal: list[dict[str, Any]], model: str) -> dict[str, Any]:
    """The inputs of the last request to a model."""
    lines = (line for line in journal if line["model"] == model and not line["id"].startswith("probe/"))
    (*_, last) = (line["inputs"] for line in lines if line["event"] == "asked")
    return last
