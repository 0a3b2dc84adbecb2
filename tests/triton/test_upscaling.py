"""Upscaling through HTTP, the gateway, the real Triton and the backend: a small random network, and its plan's way."""

import asyncio
import base64
import io
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import pytest_asyncio
import torch
from PIL import Image
from safetensors.torch import save_file

from builders import config_pbtxt, recipe
from builders.build import build
from builders.upscaling import triton_config, verify
from builders.upscaling.architectures import Compact
from builders.upscaling.family import UpscalingRecipe
from builders.upscaling.networks import CompactNetwork
from tests.triton.conftest import PATIENCE
from tests.triton.model_copies import install_copy
from tests.wire.gateway_server import RunningGateway, run_gateway
from tests.wire.openai.text_requests import check_error
from tritonic.embedded import EmbeddedTriton

pytestmark = [pytest.mark.triton, pytest.mark.asyncio(loop_scope="session")]

PATH = "/v1/images/upscales"
SHAPE = Compact(features=8, convolutions=2, scale=4)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that sharpens or blurs a little, as its weights are random and small."""
    torch.manual_seed(3)
    tensors = {name: tensor / 2 for name, tensor in CompactNetwork(SHAPE).state_dict().items()}
    path = tmp_path_factory.mktemp("weights") / "net.safetensors"
    save_file(tensors, path)
    return path


@pytest.fixture(scope="module")
def triton(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedTriton]:
    """A Triton with the network in tiles of 32 pixels, and with the same network as a model of its own."""
    repository = tmp_path_factory.mktemp("upscaling")
    made = recipe.make(family="upscaling", name="enlarge", source=str(weights), tile=32, max_pixels=40_000, max_rows=2)
    folder = build(made, repository).folder
    _install_split(folder, repository, "split")
    with EmbeddedTriton(repository) as running:
        yield running


def _install_split(folder: Path, repository: Path, name: str) -> None:
    """Install the model as the target `tensorrt` does. Our ONNX backend runs the network in the place of a plan."""
    planned = recipe.make(family="upscaling", name=name, source="/", target="tensorrt", max_rows=2)
    assert isinstance(planned, UpscalingRecipe)
    network = config_pbtxt.parse(triton_config.render_network(planned))
    network.backend, network.platform = "onnxruntime", ""
    network.instance_group[0].kind = network.instance_group[0].KIND_CPU
    version = repository / network.name / "1"
    version.mkdir(parents=True)
    (version / "model.onnx").write_bytes((folder / "1" / "model.onnx").read_bytes())
    (version.parent / "config.pbtxt").write_text(config_pbtxt.to_text(network))
    install_copy(folder, repository, name, engine="tensorrt", network=network.name)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def gateway(triton: EmbeddedTriton) -> AsyncIterator[RunningGateway]:
    async with run_gateway(triton.grpc_url, triton_secret=triton.secret) as running:
        running.http.timeout = httpx.Timeout(PATIENCE)
        yield running


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(width).integers(60, 190, (height, width, len(mode)), np.uint8)
    return Image.fromarray(pixels, mode)


async def upscale(gateway: RunningGateway, image: Image.Image, model: str = "enlarge", **fields: Any) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "PNG")
    body = {"model": model, "image": base64.b64encode(file.getvalue()).decode(), "response_format": "b64_json"}
    response = await gateway.http.post(PATH, json=body | fields)
    assert response.status_code == 200, response.text
    return Image.open(io.BytesIO(base64.b64decode(response.json()["data"][0]["b64_json"])))


@pytest.mark.parametrize("model", ["enlarge", "split"])
async def test_tiles_make_what_the_network_makes_of_the_whole(
    gateway: RunningGateway, weights: Path, model: str
) -> None:
    image = picture(120, 70)
    pictures = np.asarray(image).transpose(2, 0, 1)[None].astype(np.float32) / 255
    expected = verify.torch_reference(weights)(pictures)[0].clip(0, 1).transpose(1, 2, 0) * 255
    made = np.asarray(await upscale(gateway, image, model, scale=4)).astype(float)
    assert made.shape == (280, 480, 3) and np.abs(made - expected).max() <= 0.51
    halved = np.asarray(await upscale(gateway, image, model, scale=2)).astype(float)
    means = expected.reshape(140, 2, 240, 2, 3).mean((1, 3))
    assert np.abs(halved - means).max() <= 0.51


async def test_pictures_of_several_callers_and_formats(gateway: RunningGateway) -> None:
    sizes = [(1, 1), (33, 200), (90, 90), (90, 90), (200, 31)]
    found = await asyncio.gather(*(upscale(gateway, picture(*size)) for size in sizes))
    assert [image.size for image in found] == [(2 * width, 2 * height) for width, height in sizes]
    made = await upscale(gateway, picture(20, 30, "RGBA"), output_format="webp")
    assert (made.size, made.mode, made.format) == ((40, 60), "RGBA", "WEBP")


async def test_refusals_and_the_list_of_models(gateway: RunningGateway, triton: EmbeddedTriton) -> None:
    data = io.BytesIO()
    Image.new("RGB", (300, 200)).save(data, "PNG")
    response = await gateway.http.post(PATH, files={"image": data.getvalue()}, data={"model": "enlarge"})
    assert "at most 40000 pixels by 2" in check_error(response, 400, param="image")
    models = {model["id"] for model in (await gateway.http.get("/v1/models")).json()["data"]}
    assert models == {"enlarge", "split"}
    metrics = (await httpx.AsyncClient(trust_env=False).get(triton.metrics_url)).text
    assert any(line.startswith('upscaling_tiles_total{model="enlarge"') for line in metrics.splitlines())
