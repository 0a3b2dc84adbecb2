"""The models that the builder makes answer the probes of the gateway."""

import asyncio
from pathlib import Path

import pytest

from gateway.models.catalog import Catalog
from gateway.models.probe import can_be_probed, probe
from tests.triton.text_client import NAME
from tritonic.embedded import EmbeddedTriton

pytestmark = [pytest.mark.triton, pytest.mark.asyncio(loop_scope="session")]


async def _probed(triton: EmbeddedTriton, name: str) -> None:
    catalog = Catalog([triton.grpc_url], interval=1, timeout=60, secret=triton.secret)
    watching = asyncio.create_task(catalog.watch())
    try:
        async with asyncio.timeout(60):
            while name not in [model.name for model in catalog.models()]:
                await asyncio.sleep(0.05)
        model = catalog.get(name)
        assert can_be_probed(model)
        await probe(model, 60)
    finally:
        watching.cancel()
        await catalog.close()


async def test_a_chat_model_answers_the_probe(triton: EmbeddedTriton) -> None:
    await _probed(triton, NAME)


async def test_an_embedding_model_answers_the_probe(embedding_triton: EmbeddedTriton, embedding_folder: Path) -> None:
    await _probed(embedding_triton, embedding_folder.name)
