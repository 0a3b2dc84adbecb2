"""The networks that are exported, on PyTorch: streamed VAE, rewritten attention, and all together against diffusers."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from builders.diffusion.networks import load_component
from builders.diffusion.parts import concrete_size, example_inputs
from builders.video import pipeline, pipeline_json, vae_streams
from builders.video.networks import load_part
from builders.video.parts import pipeline_parts
from builders.video.reference_pipeline import generate_videos
from builders.video.vae_caches import decoder_caches, encoder_caches
from builders.video.verify import generate_with_diffusers, smallest_requests
from tests.fakes.tiny_wan import KINDS
from tests.unit.builders.diffusion.network_engines import NetworkEngines

Wan = Callable[[str], Path]


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_videos_are_those_of_diffusers_frame_by_frame(kind: str, count: int, wan: Wan, tmp_path: Path) -> None:
    read = pipeline.read(wan(kind))
    pipeline_json.write(read, "tiny", tmp_path)
    engines = NetworkEngines(pipeline_parts(read), lambda part: load_part(read, part, rewritten=True), tmp_path)
    requests = smallest_requests(read, 3.0, count)
    assert len(requests) == (2 if kind.startswith("ti2v") else 1)
    for request in requests:
        ours, theirs = generate_videos(engines, request).videos, generate_with_diffusers(read, request).videos
        assert ours.shape == (count, 3, request.num_frames, request.height, request.width)
        assert np.abs(ours - theirs).max() < 1e-4
        assert ours[:, :, 1:].std() > 0.05, "an empty video would be equal too"


def test_the_first_frame_decides_the_video(wan: Wan, tmp_path: Path) -> None:
    """Otherwise the comparison with diffusers would not notice a picture that both ignore."""
    read = pipeline.read(wan("ti2v-small"))
    pipeline_json.write(read, "tiny", tmp_path)
    engines = NetworkEngines(pipeline_parts(read), lambda part: load_part(read, part), tmp_path)
    without, with_picture = (generate_videos(engines, request).latents for request in smallest_requests(read, 3.0))
    for frame in range(with_picture.shape[2]):
        assert np.abs(without[:, :, frame] - with_picture[:, :, frame]).max() > 1e-3


@pytest.mark.parametrize("kind", ["t2v", "ti2v"])
@pytest.mark.parametrize(("count", "frames"), [(1, 1), (3, 4)])
def test_a_video_in_pieces_is_the_whole_video(kind: str, count: int, frames: int, wan: Wan) -> None:
    read = pipeline.read(wan(kind))
    vae = load_component(read, "vae")
    latents = torch.randn(count, read.latent_channels, frames, 2, 3)
    start = vae_streams.DecoderStart(vae, decoder_caches(read))
    step = vae_streams.DecoderStep(vae, decoder_caches(read))
    pixels, *caches = start(latents[:, :, :1])
    pieces, shapes = [pixels], [cache.shape for cache in caches]
    for number in range(1, frames):
        pixels, *caches = step(latents[:, :, number : number + 1], tuple(caches))
        pieces.append(pixels)
        assert [cache.shape for cache in caches] == shapes, "the memory of a stream does not grow"
    video = torch.cat(pieces, dim=2)
    assert torch.allclose(video, vae.decode(latents, return_dict=False)[0], atol=1e-5)

    start_encoder = vae_streams.EncoderStart(vae, encoder_caches(read))
    step_encoder = vae_streams.EncoderStep(vae, encoder_caches(read))
    moments, *caches = start_encoder(video[:, :, :1])
    encoded, shapes = [moments], [cache.shape for cache in caches]
    for number in range(1, video.shape[2], 4):
        moments, *caches = step_encoder(video[:, :, number : number + 4], tuple(caches))
        encoded.append(moments)
        assert [cache.shape for cache in caches] == shapes
    assert torch.allclose(torch.cat(encoded, dim=2), vae.encode(video).latent_dist.parameters, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_tensors_have_the_shapes_that_parts_declare(kind: str, wan: Wan) -> None:
    read = pipeline.read(wan(kind))
    sizes = {"height": 4, "width": 6, "tokens": 5, "frames": 3}
    for part in pipeline_parts(read):
        units = {name: size // (part.size_unit if name in ("height", "width") else 1) for name, size in sizes.items()}
        inputs = {key: torch.from_numpy(value) for key, value in example_inputs(part, 2, units).items()}
        caches = tuple(inputs.pop(key) for key in list(inputs) if key.startswith("cache_"))
        outputs = load_part(read, part)(**inputs, **({"caches": caches} if caches else {}))
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        assert len(outputs) == len(part.outputs)
        for port, tensor in zip(part.outputs, outputs, strict=True):
            assert tuple(tensor.shape) == (2, *(concrete_size(size, sizes) for size in port.shape)), port.name


@pytest.mark.parametrize("kind", ["t2v", "i2v"])
def test_rewritten_attention_computes_what_diffusers_does(kind: str, wan: Wan) -> None:
    """With norms that are not all ones, as trained weights have them."""
    read = pipeline.read(wan(kind))
    (part,) = [part for part in pipeline_parts(read) if part.name == "denoiser"]
    inputs = {
        key: torch.from_numpy(value)
        for key, value in example_inputs(part, 3, {"height": 2, "width": 3, "tokens": 7, "frames": 4}).items()
    }
    outputs = []
    for rewritten in (False, True):
        network = load_part(read, part)
        torch.manual_seed(1)
        for block in network.model.blocks:
            for norm in (block.attn1.norm_q, block.attn1.norm_k):
                torch.nn.init.uniform_(norm.weight, 0.5, 2.0)
        if rewritten:
            from builders.video.wan_layers import rewrite_attention

            rewrite_attention(network.model, fused=False)
        outputs.append(network(**inputs))
    assert torch.allclose(*outputs, atol=1e-5)
    assert outputs[0].std() > 0.1
