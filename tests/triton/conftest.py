"""Fixtures: a real Triton with the real default model and a gateway in front of it, shared by all tests here."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
import uvloop

from builders import recipe
from tests.triton import vllm_model
from tests.triton.engine_metrics import EngineMetrics
from tests.triton.model_copies import ROOT, build_default, install_copy, install_split_embedding
from tests.triton.prompts import QUESTIONS
from tests.triton.text_client import NAME, TextClient, TextResponse
from tests.wire.gateway_server import RunningGateway, run_gateway
from tritonic import default_models
from tritonic.embedded import EmbeddedTriton
from tritonic.models import ModelRepositoryClient

PATIENCE = 120
"""Timeout of a client, in seconds: the machine may be busy."""

SHORT_CONTEXT = 256

_session = pytest_asyncio.fixture(scope="session", loop_scope="session")


@dataclass(frozen=True, slots=True)
class Loader:
    """Loads and unloads models in the running Triton."""

    models: ModelRepositoryClient

    async def __call__(self, name: str) -> None:
        await asyncio.to_thread(self.models.load, name)

    async def unload(self, name: str) -> None:
        await asyncio.to_thread(self.models.unload, name)

    async def until_unloaded(self, name: str, seconds: float = 60.0) -> None:
        """Wait until Triton has ended the model's process."""
        state = None
        try:
            async with asyncio.timeout(seconds):
                while state != "UNAVAILABLE":
                    await asyncio.sleep(0.05)
                    states = await asyncio.to_thread(self.models.states)
                    (state,) = (model.state for model in states if model.name == name)
        except TimeoutError:
            raise AssertionError(f"{name} is still {state} after {seconds} seconds.") from None


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Callable]:
    """Use the event loop that the gateway has in production."""
    return {"uvloop": uvloop.new_event_loop}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With another engine, leave out the tests that check ours, and those of models that it does not run."""
    if config.getoption("--engine") == "onnxruntime":
        return
    left_out = [
        item
        for item in items
        if item.get_closest_marker("own_engine") or "default_folder" not in getattr(item, "fixturenames", ())
    ]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def default_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the default model, built as `up` builds it unless it is built already.

    With `--engine vllm`, the folder of the same model for vLLM, on the checkpoint that the builder reads.
    """
    repository = Path(os.environ.get("TRITONIC_REPOSITORY") or ROOT / "model_repository").resolve()
    built = subprocess.run(default_models.chat_build_command(repository), cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    folder = repository / default_models.chat_model_name()
    if request.config.getoption("--engine") == "onnxruntime":
        yield folder
        return
    made = tmp_path_factory.mktemp("vllm")
    with vllm_model.environment():
        yield vllm_model.make_model(folder, vllm_model.fetch_checkpoint(made), made / folder.name)
    shutil.rmtree(made)


@pytest.fixture(scope="session")
def embedding_folder() -> Path:
    """The folder of the default embedding model, built unless it is built already."""
    return build_default(recipe.DEFAULT_EMBEDDING_RECIPE)


@pytest.fixture(scope="session")
def repository(default_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A separate model repository, so that Triton loads no other installed model."""
    repository = tmp_path_factory.mktemp("repository")
    install_copy(default_folder, repository, NAME)
    return repository


@pytest.fixture(scope="session")
def triton(repository: Path) -> Iterator[EmbeddedTriton]:
    with EmbeddedTriton(repository) as running:
        yield running


@pytest.fixture(scope="session")
def embedding_triton(embedding_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedTriton]:
    """A separate Triton with the default embedding model, and two copies of it.

    `nested` has other parameters. The network of `split` is a model of its own, which takes 3 texts at once.
    """
    repository = tmp_path_factory.mktemp("embeddings")
    install_copy(embedding_folder, repository, embedding_folder.name)
    install_copy(
        embedding_folder,
        repository,
        "nested",
        matryoshka="true",
        prompts='{"query": "q: "}',
        threads=1,
        truncate_prompt_tokens=20,
    )
    install_split_embedding(embedding_folder, repository, "split", max_texts=3)
    with EmbeddedTriton(repository) as running:
        yield running


@_session
async def gateway(triton: EmbeddedTriton) -> AsyncIterator[RunningGateway]:
    """A gateway with default settings."""
    async with run_gateway(triton.grpc_url, triton_secret=triton.secret) as running:
        running.http.timeout = httpx.Timeout(PATIENCE)
        yield running


@_session
async def engine(triton: EmbeddedTriton) -> AsyncIterator[EngineMetrics]:
    async with httpx.AsyncClient(trust_env=False) as http:
        yield EngineMetrics(triton.metrics_url, http)


@_session
async def complete(gateway: RunningGateway) -> TextClient:
    """Sends requests to the shared gateway, and reads whole and streamed responses."""
    return TextClient(gateway)


@_session
async def idle_responses(complete: TextClient) -> list[TextResponse]:
    """The responses to the `QUESTIONS`, each requested while the model is idle."""
    return [await complete(question) for question in QUESTIONS]


@_session
async def load(triton: EmbeddedTriton) -> AsyncIterator[Loader]:
    with ModelRepositoryClient(triton.grpc_url, triton.secret) as models:
        yield Loader(models)


@_session
async def short_context_model(default_folder: Path, repository: Path, gateway: RunningGateway, load: Loader) -> str:
    """The name of a second copy of the model, with a short context, one row, and a queue of one."""
    name = "tight"
    install_copy(default_folder, repository, name, context_length=SHORT_CONTEXT, max_rows=1, max_waiting=1)
    await load(name)
    await gateway.until(f"/v1/models/{name}", lambda response: response.status_code == 200)
    return name


@pytest.fixture(scope="session")
def tokenizer(default_folder: Path) -> Any:
    """The checkpoint's tokenizer and chat template, as transformers reads them."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(default_folder / "1")
