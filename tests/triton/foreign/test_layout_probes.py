"""Models of every layout answer the probes of the gateway."""

import asyncio
from pathlib import Path

import pytest

from gateway.models import models_file
from gateway.models.catalog import Catalog
from gateway.models.probe import can_be_probed, probe
from tests.triton.foreign.scripted_requests import ALL, BATCHERS
from tests.wire.gateway_server import RunningGateway
from tritonic.embedded import EmbeddedTriton

pytestmark = [pytest.mark.triton, pytest.mark.asyncio(loop_scope="session")]


async def test_each_layout_answers_the_probe(served: RunningGateway, foreign: tuple[EmbeddedTriton, Path]) -> None:
    triton, repository = foreign
    described = models_file.read(repository.parent / "models.toml")
    catalog = Catalog([triton.grpc_url], interval=1, timeout=20, secret=triton.secret, descriptions=described)
    watching = asyncio.create_task(catalog.watch())
    try:
        async with asyncio.timeout(20):
            while not catalog.models():
                await asyncio.sleep(0.05)
        models = {model.name: model for model in catalog.models()}
        assert models.keys() >= {*ALL, *BATCHERS}
        for name in (*ALL, *BATCHERS):
            assert can_be_probed(models[name])
            await probe(models[name], 20)
    finally:
        watching.cancel()
        await catalog.close()
