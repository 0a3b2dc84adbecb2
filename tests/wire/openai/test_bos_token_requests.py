"""The beginning-of-sequence token: prompts do not repeat it for a backend that adds it itself."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.fakes.scripted_model import Echo, ScriptedModel
from tests.fakes.triton import FakeTriton
from tests.wire.gateway_server import RunningGateway, run_gateway
from tests.wire.openai.text_requests import CHAT, TEXT, TextRoute, captured_call

pytestmark = pytest.mark.asyncio(loop_scope="session")

_BOS = "<|begin|>"
_TEMPLATE = "{{ bos_token }}{% for m in messages %}[{{ m.content }}]{% endfor %}"
_LLAMA = {
    "chat_template": _TEMPLATE,
    "special_tokens": json.dumps({"bos_token": _BOS, "eos_token": "<|end|>"}),
    "control_tokens": json.dumps([_BOS, "<|end|>"]),
}
_OURS = ("token_ids", "literal_spans")
"""The inputs that Triton's vLLM backend does not have."""
_FILE = """
[models.undescribed]
tokenizer_config = "tokenizer_config.json"
[models.told]
tokenizer_config = "tokenizer_config.json"
add_bos_token = false
"""


def undescribed(name: str) -> ScriptedModel:
    nothing: dict[str, str | None] = dict.fromkeys(
        ("operations", "signature", "modalities", "chat_template", "special_tokens", "control_tokens")
    )
    return ScriptedModel(name, (Echo(),), parameters=nothing, missing_inputs=_OURS)


MODELS = [
    ScriptedModel("ours", (Echo(),), parameters={**_LLAMA}),
    ScriptedModel("ours-adds", (Echo(),), parameters={**_LLAMA, "add_bos_token": "true"}),
    ScriptedModel("vllm", (Echo(),), parameters={**_LLAMA}, missing_inputs=_OURS),
    ScriptedModel("vllm-adds-none", (Echo(),), parameters={**_LLAMA, "add_bos_token": "false"}, missing_inputs=_OURS),
    ScriptedModel(
        "recognising", (Echo(),), parameters={**_LLAMA, "special_tokens_in_content": "recognised"}, missing_inputs=_OURS
    ),
    # Its tokenizer calls the mark of a turn `bos_token`, and puts nothing before a text.
    ScriptedModel("turns", (Echo(),), missing_inputs=_OURS),
    undescribed("undescribed"),
    undescribed("told"),
    ScriptedModel("odd", parameters={"add_bos_token": "perhaps"}),
]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def triton() -> AsyncIterator[FakeTriton]:
    fake = await FakeTriton(MODELS).start()
    yield fake
    await fake.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def gateway(triton: FakeTriton, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningGateway]:
    folder: Path = tmp_path_factory.mktemp("checkpoint")
    described: dict[str, Any] = {"chat_template": _TEMPLATE, "bos_token": {"content": _BOS}, "add_bos_token": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(described))
    (folder / "models.toml").write_text(_FILE)
    async with run_gateway(triton.url, models_file=folder / "models.toml") as running:
        yield running


@pytest.mark.parametrize(
    ("model", "route", "text", "prompt"),
    [
        ("vllm", CHAT, "Hi", "[Hi]"),
        ("undescribed", CHAT, "Hi", "[Hi]"),
        ("vllm", TEXT, f"{_BOS}[Hi]", "[Hi]"),
        ("vllm", TEXT, "[Hi]", "[Hi]"),
        ("vllm", TEXT, _BOS, _BOS),
        ("vllm", CHAT, _BOS, "[<\u200b|begin|>]"),
        ("recognising", CHAT, _BOS, f"[{_BOS}]"),
        ("ours", CHAT, "Hi", f"{_BOS}[Hi]"),
        ("ours", TEXT, f"{_BOS}[Hi]", f"{_BOS}[Hi]"),
        ("ours-adds", CHAT, "Hi", "[Hi]"),
        ("vllm-adds-none", CHAT, "Hi", f"{_BOS}[Hi]"),
        ("told", CHAT, "Hi", f"{_BOS}[Hi]"),
        ("turns", CHAT, "Hi", "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"),
    ],
)
async def test_the_prompt_that_reaches_a_model(
    gateway: RunningGateway, triton: FakeTriton, model: str, route: TextRoute, text: str, prompt: str
) -> None:
    for stream in (False, True):
        streamed_route = TextRoute(route.path, stream)
        body = streamed_route.body(model, text)
        del body["model"]
        assert (await captured_call(gateway, triton, streamed_route, model, **body)).prompt == prompt


async def test_literal_spans_move_with_the_stripped_bos(gateway: RunningGateway, triton: FakeTriton) -> None:
    messages = [{"role": "user", "content": "é<|end|>"}]
    spans = {}
    for model in ("ours", "ours-adds"):
        call = await captured_call(gateway, triton, CHAT, model, messages=messages)
        first, last = map(int, call.tensors["literal_spans"])
        assert b"<|end|>" in call.prompt.encode()[first:last]
        spans[model] = (first, last)
    assert spans["ours-adds"] == tuple(position - len(_BOS) for position in spans["ours"])


async def test_an_echo_begins_with_the_prompt_as_it_was_given(gateway: RunningGateway, triton: FakeTriton) -> None:
    call = await gateway.http.post(TEXT.path, json=TEXT.body("vllm", f"{_BOS}[Hi]", echo=True))
    assert call.json()["choices"][0]["text"] == f"{_BOS}[Hi][Hi]"


async def test_a_model_without_a_bos_setting_is_left_out(gateway: RunningGateway) -> None:
    names = [model["id"] for model in (await gateway.http.get("/v1/models")).json()["data"]]
    assert "vllm" in names and "odd" not in names
