"""Every curl example of the standard documents; only the host, the key and the model's name differ."""

import json

import pytest

from tests.wire.conftest import KEYS
from tests.wire.gateway_server import RunningGateway
from tests.wire.openai.text_requests import check_error

pytestmark = pytest.mark.asyncio(loop_scope="session")

JSON = {"Content-Type": "application/json"}
HELLO = """{
    "model": "hello",
    "messages": [
      {
        "role": "system",
        "content": "You are a helpful assistant."
      },
      {
        "role": "user",
        "content": "Hello!"
      }
    ]
  }"""
WHAT_CAN_YOU_DO = HELLO.replace("Hello!", "Hello! What can you do?")
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
AITRE = {"Accept": "application/json", **JSON}
GREETING = "\n\nHello there, how may I assist you today?"


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (HELLO, JSON),
        (WHAT_CAN_YOU_DO, JSON),
        (HELLO, AITRE),
        (HELLO, {"Content-Type": "application/x-www-form-urlencoded"}),
    ],
    ids=["standard", "reference", "aitre", "curl-without-header"],
)
async def test_chat(guarded: RunningGateway, body: str, headers: dict[str, str]) -> None:
    key = {"Authorization": f"Bearer {KEYS[0]}"}
    response = await guarded.http.post("/v1/chat/completions", content=body, headers=headers | key)
    assert response.status_code == 200
    # Compared literally by the nodes that call this API.
    assert [value for name, value in response.headers.raw if name.lower() == b"content-type"] == [b"application/json"]
    answer = response.json()
    assert (answer["code"], answer["message"]) == (0, "success")
    assert answer["id"].startswith("chatcmpl-") and answer["object"] == "chat.completion"
    assert isinstance(answer["created"], int)
    assert answer["model"] == "hello"
    assert isinstance(answer["system_fingerprint"], str)
    (choice,) = answer["choices"]
    assert choice["index"] == 0
    assert (choice["message"]["role"], choice["message"]["content"]) == ("assistant", GREETING)
    assert choice["logprobs"] is None
    assert choice["finish_reason"] == "stop"
    assert answer["usage"].items() >= {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18}.items()


async def test_an_image_for_a_text_model_is_refused(guarded: RunningGateway) -> None:
    parts = [
        {"type": "text", "text": "What is in this image?"},
        {"type": "image_url", "image_url": {"url": "https://example.com/image.jpg"}},
    ]
    body = {"model": "hello", "messages": [{"role": "user", "content": parts}], "max_tokens": 300}
    key = {"Authorization": f"Bearer {KEYS[1]}"}
    response = await guarded.http.post("/v1/chat/completions", content=json.dumps(body), headers=JSON | key)
    assert response.status_code == 400
    check_error(response, 400, code="unsupported_parameter", param=response.json()["error"]["param"])
    assert response.json()["error"]["param"].startswith("messages[0].content[1]")


async def test_models(guarded: RunningGateway) -> None:
    response = await guarded.http.get("/v1/models", headers={"Authorization": f"Bearer {KEYS[0]}"})
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    listing = response.json()
    assert (listing["object"], listing["project"]) == ("list", "DecentralGPT")
    models = {model["id"]: model for model in listing["data"]}
    served = models["org/served"]
    assert served["object"] == "model"
    assert served["created"] == 1700000000
    assert served["owned_by"] == "org"
    assert isinstance(served["permission"], list)
    assert served["root"] == served["model"] == "org/served"
    assert served["parent"] is None
    assert served["url"] == f"{guarded.url}/v1/chat/completions"
    assert "folder" not in models
    for model in models.values():
        assert model.keys() >= {"id", "object", "created", "owned_by", "permission", "root", "parent", "model", "url"}


async def test_models_have_the_public_url_where_one_is_set(narrow: RunningGateway) -> None:
    listing = (await narrow.http.get("/v1/models")).json()
    assert {model["url"].rsplit("/v1/", 1)[0] for model in listing["data"]} == {"https://api.example"}


async def test_the_default_project(gateway: RunningGateway) -> None:
    assert (await gateway.http.get("/v1/models")).json()["project"] == "Tritonic"


@pytest.mark.parametrize("path", ["/v1/models/org/served", "/v1/models/org%2Fserved"])
async def test_one_model(gateway: RunningGateway, path: str) -> None:
    response = await gateway.http.get(path)
    assert (response.status_code, response.json()["id"]) == (200, "org/served")
