"""The request front over an engine that enforces structures and encodes images by itself."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from backends.llm.active_request import Request
from backends.llm.engines import read_options
from backends.llm.model_loader import load_model
from backends.llm.output_collector import RequestOutput
from backends.llm.prompt_tokenizer import PromptTokenizer
from backends.llm.request_frontend import LLMFrontend
from backends.llm.structured_outputs.grammar_compiler import GrammarCompiler
from backends.serving.errors import GenerationError
from tests.unit.llm.external import llmapi_stand_in, vllm_stand_in
from tests.unit.llm.external.vllm_stand_in import AsyncLLM
from tests.unit.llm.image_files import base64_image, noise_image

PLACEHOLDER = 3 + 93
"""The token of `~`, with a token for each byte."""


class Client:
    """A response sender that records responses."""

    def __init__(self) -> None:
        self.answers: list[RequestOutput] = []
        self.num_prompt_tokens = 0
        self.error: GenerationError | None = None
        self.ended = threading.Event()

    def is_cancelled(self) -> bool:
        return False

    def send(self, answer: RequestOutput, num_prompt_tokens: int, *, final: bool) -> None:
        self.answers.append(answer)
        self.num_prompt_tokens = num_prompt_tokens
        if final:
            self.ended.set()

    def fail(self, error: GenerationError) -> None:
        self.error = error
        self.ended.set()


@pytest.fixture
def open_frontend(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., LLMFrontend]]:
    """Load a model with images and an adapter on a stand-in."""
    vllm_stand_in.install(monkeypatch)
    llmapi_stand_in.install(monkeypatch)
    config = {"eos_token_id": 1, "image_token_id": PLACEHOLDER, "vocab_size": 259, "max_position_embeddings": 500}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.json").write_text('{"model": "m", "max_model_len": 500}')
    (tmp_path / "model.yaml").write_text("{model: m, guided_decoding_backend: null}")
    (tmp_path / "multi_lora.json").write_text('{"sql": "adapter"}')
    frontends: list[LLMFrontend] = []

    def make(name: str = "vllm") -> LLMFrontend:
        loaded = load_model(tmp_path, tokenizer, read_options({"engine": {"string_value": name}}))
        engine = loaded.engine
        prompts = PromptTokenizer(
            tokenizer, bos=None, vocab_size=engine.vocab_size, context_length=engine.context_length
        )
        grammars = GrammarCompiler(tokenizer, engine.vocab_size, loaded.eos)
        frontends.append(LLMFrontend(engine, prompts, 8, None, grammars, loaded.vision_processor))
        return frontends[-1]

    yield make
    for frontend in frontends:
        frontend.close()


def ask(frontend: LLMFrontend, text: bytes = b"hello", *images: bytes, **sampling: Any) -> Client:
    client = Client()
    document = json.dumps({"max_tokens": 3, **sampling}).encode()
    frontend.add_request(Request(text, None, True, True, document, images), client)
    assert client.ended.wait(30)
    return client


def test_a_structure_is_handed_to_the_engine(open_frontend) -> None:
    client = ask(open_frontend(), structured_outputs={"regex": "[a-z]+"})
    assert client.error is None
    ((_, params, _),) = AsyncLLM.latest.requests.values()
    assert params.structured_outputs and str(params.structured_outputs.grammar).endswith("start: /[a-z]+/")


def test_a_structure_is_refused_for_the_reasons_of_every_engine(open_frontend) -> None:
    frontend = open_frontend()
    client = ask(frontend, structured_outputs={"json": {"items": {"not": {"pattern": "a"}}}})
    assert "'not' at '#/items' can be enforced only" in str(client.error)
    client = ask(frontend, structured_outputs={"regex": "((a{1000}){1000}){7}"})
    assert str(client.error).startswith("[invalid_value:structured_outputs]")
    assert not AsyncLLM.latest.requests


def test_an_engine_without_structures_refuses_them(open_frontend) -> None:
    client = ask(open_frontend("llmapi"), structured_outputs={"regex": "a"})
    assert str(client.error).startswith("[unsupported_option:structured_outputs]")


def test_the_prompt_is_as_long_as_its_images_make_it(open_frontend) -> None:
    frontend = open_frontend()
    AsyncLLM.latest.num_expanded_tokens = 30
    client = ask(frontend, b"see ~", base64_image(noise_image(20, 10)))
    assert client.error is None and client.num_prompt_tokens == 5 + 30
    ((prompt, _, _),) = AsyncLLM.latest.requests.values()
    assert [image.size for image in prompt["multi_modal_data"]["image"]] == [(20, 10)]


def test_a_request_may_name_an_adapter(open_frontend) -> None:
    frontend = open_frontend()
    assert ask(frontend, lora_name="sql").error is None
    assert str(ask(frontend, lora_name="law").error).startswith("[invalid_value:lora_name]")
    ((_, _, lora),) = AsyncLLM.latest.requests.values()
    assert lora.lora_name == "sql"
