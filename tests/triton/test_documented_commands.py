"""The curl commands of the OpenAI and relay documents, run by curl with only host, key and model changed."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.triton.text_client import NAME
from tests.wire.gateway_server import RunningGateway, run_gateway
from tests.wire.openai.text_requests import check_error_body

pytestmark = [pytest.mark.triton, pytest.mark.asyncio(loop_scope="session")]

KEY = "sk-of-the-documents"
HELLO = """{
    "model": "MODEL",
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
STANDARD = f"""curl BASE/v1/chat/completions \\
  -H "Content-Type: application/json" \\
  -d '{HELLO}'"""
REFERENCE = f"""curl BASE/v1/chat/completions \\
  -H "Content-Type: application/json" \\
  -H "Authorization: Bearer $OPENAI_API_KEY" \\
  -d '{HELLO.replace("Hello!", "Hello! What can you do?")}'"""
RELAY = f"""curl --location -g --request POST 'BASE/v1/chat/completions' \\
--header 'Accept: application/json' \\
--header 'Authorization: Bearer {KEY}' \\
--header 'Content-Type: application/json' \\
--data-raw '{HELLO}'"""
PICTURE = """curl BASE/v1/chat/completions \\
  -H "Content-Type: application/json" \\
  -H "Authorization: Bearer $OPENAI_API_KEY" \\
  -d '{
    "model": "MODEL",
    "messages": [
      {
        "role": "user",
        "content": [
          {
            "type": "text",
            "text": "What is in this image?"
          },
          {
            "type": "image_url",
            "image_url": {
              "url": "https://example.com/image.jpg"
            }
          }
        ]
      }
    ],
    "max_tokens": 300
  }'"""
MODELS = "curl BASE/v1/models"
MODELS_WITH_KEY = """curl BASE/v1/models \\
  -H "Authorization: Bearer $OPENAI_API_KEY\""""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def guarded(triton) -> AsyncIterator[RunningGateway]:
    async with run_gateway(
        triton.grpc_url, triton_secret=triton.secret, api_keys=[KEY], project="DecentralGPT"
    ) as running:
        yield running


async def run(command: str, gateway: RunningGateway, folder: Path, model: str = NAME) -> tuple[int, Any]:
    """Run the printed command in bash, and return the status and the JSON document."""
    command = command.replace("BASE", gateway.url).replace("MODEL", model)
    # Options that the documents do not print go into curl's configuration file.
    (folder / ".curlrc").write_text(
        'silent\nshow-error\nnoproxy = "*"\nmax-time = 120\nwrite-out = "\\n%{http_code}"\n'
    )
    environment = {**os.environ, "OPENAI_API_KEY": KEY, "CURL_HOME": str(folder)}
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec("bash", "-c", command, env=environment, stdout=pipe, stderr=pipe)
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    document, status = output.decode().rsplit("\n", 1)
    return int(status), json.loads(document)


@pytest.mark.parametrize(
    ("command", "needs_key"),
    [(STANDARD, False), (REFERENCE, True), (RELAY, True)],
    ids=["standard", "reference", "relay"],
)
async def test_chat(
    gateway: RunningGateway,
    guarded: RunningGateway,
    short_context_model: str,
    tmp_path: Path,
    command: str,
    needs_key: bool,
) -> None:
    """The printed commands sample at random and set no limit, so a small model may generate for minutes.

    The model with the short context bounds that.
    """
    status, answer = await run(command, guarded if needs_key else gateway, tmp_path, short_context_model)
    assert status == 200, answer
    assert (answer["code"], answer["message"]) == (0, "success")
    assert (answer["object"], answer["model"]) == ("chat.completion", short_context_model)
    (choice,) = answer["choices"]
    assert choice["message"]["role"] == "assistant" and choice["message"]["content"].strip()
    assert choice["finish_reason"] in ("stop", "length")
    usage = answer["usage"]
    assert usage["prompt_tokens"] > 15 and usage["completion_tokens"] > 1
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


async def test_an_image_for_a_text_model_is_refused(guarded: RunningGateway, tmp_path: Path) -> None:
    status, answer = await run(PICTURE, guarded, tmp_path)
    assert status == 400
    check_error_body(answer, "invalid_request_error", "unsupported_parameter", "messages[0].content[1]")


@pytest.mark.parametrize(("command", "needs_key"), [(MODELS, False), (MODELS_WITH_KEY, True)], ids=["open", "key"])
async def test_models(
    gateway: RunningGateway, guarded: RunningGateway, tmp_path: Path, command: str, needs_key: bool
) -> None:
    queried = guarded if needs_key else gateway
    status, listing = await run(command, queried, tmp_path)
    assert (status, listing["object"]) == (200, "list")
    assert listing["project"] == ("DecentralGPT" if needs_key else "Tritonic")
    model = next(model for model in listing["data"] if model["id"] == NAME)
    assert model["model"] == NAME
    assert model["url"] == f"{queried.url}/v1/chat/completions"


async def test_without_the_key(guarded: RunningGateway, tmp_path: Path) -> None:
    status, answer = await run(MODELS, guarded, tmp_path)
    assert status == 401
    check_error_body(answer, "authentication_error", "invalid_api_key")
