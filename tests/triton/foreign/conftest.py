"""A Triton with models of all foreign layouts, and a gateway in front of it."""

import json
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.triton.foreign import layouts
from tests.triton.text_client import TextClient
from tests.wire.gateway_server import RunningGateway, run_gateway
from tritonic.embedded import EmbeddedTriton

MODELS = """
[models."llmapi"]
chat_template_file = "plain.jinja"
context_length = 4000
[models."llmapi_deltas"]
tokenizer_config = "tokenizer_config.json"
[models."llmapi_once"]
chat_template_file = "plain.jinja"
modalities = ["text", "image"]
[models."llmapi_engine"]
chat_template_file = "plain.jinja"
context_length = 1000
[models."mock_llm"]
chat_template_file = "plain.jinja"
[models."barest"]
signature = "tensorrt_llm"
chat_template_file = "plain.jinja"
[models."barest_vllm"]
signature = "vllm"
chat_template_file = "plain.jinja"
[models."vllm_model"]
served_name = "org/served-by-vllm"
chat_template_file = "plain.jinja"
control_tokens = ["<|im_end|>", "[INST]"]
owned_by = "org"
[models."vllm_of_the_file"]
chat_template_file = "plain.jinja"
context_length = 600
[models."ensemble"]
chat_template_file = "plain.jinja"
control_tokens = ["<|im_end|>", "[INST]"]
context_length = 4000
[models."tensorrt_llm_bls"]
chat_template_file = "plain.jinja"
context_length = 4000
[models."accumulating_bls"]
chat_template_file = "plain.jinja"
control_tokens = ["<|im_end|>", "[INST]"]
special_tokens_in_content = "recognised"
max_tokens = 100
[models."secret"]
hidden = true
"""


@pytest.fixture(scope="package")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[EmbeddedTriton, Path]]:
    repository = tmp_path_factory.mktemp("foreign") / "repository"
    repository.mkdir()
    layouts.install_llmapi(repository, "llmapi")
    layouts.install_llmapi(repository, "llmapi_deltas", grow="delta")
    layouts.install_llmapi(repository, "llmapi_once", decoupled=False)
    layouts.install_llmapi(repository, "llmapi_engine", max_seq_len=1000)
    layouts.install_llmapi(repository, "secret")
    layouts.install_mocks(repository)
    layouts.install_vllm(repository, "vllm_model")
    layouts.install_vllm(repository, "bare", release="25.10", max_model_len=400)
    layouts.install_vllm(repository, "vllm_of_the_file")
    layouts.install_inflight_batcher(repository)
    with EmbeddedTriton(repository) as running:
        yield running, repository
        running.kill()  # it would wait for an instance that hangs


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def served(foreign: tuple[EmbeddedTriton, Path]) -> AsyncIterator[RunningGateway]:
    triton, repository = foreign
    template = "{% for m in messages %}{{ m.content if m.content is string else m.content[0].text }}{% endfor %}"
    (repository.parent / "plain.jinja").write_text(template)
    added_tokens = {"5": {"content": "<|im_end|>", "special": True}, "6": {"content": "[INST]", "special": True}}
    config = {
        "chat_template": "{{ bos_token }}" + template,
        "bos_token": {"content": "<s>"},
        "eos_token": "</s>",
        "added_tokens_decoder": added_tokens,
    }
    (repository.parent / "tokenizer_config.json").write_text(json.dumps(config))
    (repository.parent / "models.toml").write_text(MODELS)
    async with run_gateway(
        triton.grpc_url, triton_secret=triton.secret, models_file=repository.parent / "models.toml"
    ) as running:
        yield running


@pytest.fixture
def complete(served: RunningGateway) -> TextClient:
    return TextClient(served)


@pytest.fixture
def journal(foreign: tuple[EmbeddedTriton, Path]) -> Callable[[], list[dict[str, Any]]]:
    return lambda: layouts.journal(foreign[1])
