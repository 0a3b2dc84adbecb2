"""Requests for images from admission to the last response: refusals, edits, disconnects and closing."""

import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from backends.serving.errors import Cancelled, EngineFailed, GenerationError, InvalidValue, Overloaded
from tests.unit.diffusion.tiny_pipeline import TinyPipeline, open_tiny_pipeline, wait_for


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TinyPipeline]:
    with open_tiny_pipeline(tmp_path_factory.mktemp("frontend"), "sd2", max_rows=4, max_waiting=6) as opened:
        yield opened


def png(pixels: Any, mode: str | None = None) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels, mode).save(file, "PNG")
    return file.getvalue()


NOISE = np.random.default_rng(1).integers(0, 255, (32, 48, 3), np.uint8)
HALF_MASK = np.zeros((32, 48), np.uint8)
HALF_MASK[:, 24:] = 255


def test_only_masked_pixels_change(tiny: TinyPipeline) -> None:
    sender = tiny.ask(images=(png(NOISE),), mask=png(HALF_MASK), seed=1).outcome()
    pixels = sender.pixels()
    assert pixels.shape == NOISE.shape
    assert (pixels[:, :24] == NOISE[:, :24]).all()
    assert (pixels[:, 24:] != NOISE[:, 24:]).mean() > 0.9


def test_an_image_with_transparent_borders_is_extended(tiny: TinyPipeline) -> None:
    wide = np.zeros((32, 64, 4), np.uint8)
    wide[:, 16:48, :3], wide[:, 16:48, 3] = NOISE[:, :32], 255
    pixels = tiny.ask(images=(png(wide),), seed=1).outcome().pixels()
    assert pixels.shape == (32, 64, 3)
    assert (pixels[:, 16:48] == NOISE[:, :32]).all()
    assert pixels[:, :16].std() > 5


def test_an_init_image_is_resized_to_a_supported_size(tiny: TinyPipeline) -> None:
    odd = np.random.default_rng(1).integers(0, 255, (37, 50, 3), np.uint8)
    assert tiny.ask(images=(png(odd),)).outcome().pixels().shape == (32, 48, 3)
    assert tiny.ask(images=(png(odd),), width=64, height=64).outcome().pixels().shape == (64, 64, 3)


def test_the_strength_determines_the_number_of_steps(tiny: TinyPipeline) -> None:
    tiny.components.calls.clear()
    tiny.ask(images=(png(NOISE),), strength=0.5, steps=10).outcome()
    assert len(tiny.components.batches("denoiser")) == 5


def test_random_seeds_are_reported(tiny: TinyPipeline) -> None:
    first = tiny.ask(num_images=2).outcome()
    assert first.seeds[1] == first.seeds[0] + 1
    again = tiny.ask(seed=first.seeds[1]).outcome()
    assert np.abs(again.pixels().astype(int) - first.pixels(1)).max() <= 1
    assert tiny.ask(seed=2**64 - 1, num_images=2).outcome().seeds == {0: 2**64 - 1, 1: 0}


def test_previews_come_before_their_image(tiny: TinyPipeline) -> None:
    sender = tiny.ask(steps=12, partial_images=3, num_images=2, seed=1).outcome()
    assert sorted((index, number) for index, number, _ in sender.previews) == [
        (index, number) for index in (0, 1) for number in (0, 1, 2)
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_images": 0}, "[invalid_value:num_images]"),
        ({"num_images": 11}, "[invalid_value:num_images]"),
        ({"steps": 0}, "[invalid_value:steps]"),
        ({"steps": 51}, "[invalid_value:steps]"),
        ({"width": 1, "height": 1}, "[invalid_value:width]"),
        ({"width": -16}, "[invalid_value:width]"),
        ({"width": 512}, "[invalid_value:width]"),
        ({"guidance_scale": float("nan")}, "[invalid_value:guidance_scale]"),
        ({"guidance_scale": -1.0}, "[invalid_value:guidance_scale]"),
        ({"strength": 0.5}, "[invalid_value:strength]"),
        ({"strength": 0.0, "images": (b"",)}, "[invalid_value:strength]"),
        ({"mask": b"x"}, "[invalid_value:mask]"),
        ({"images": (b"x",)}, "[invalid_value:image]"),
        ({"images": (png(NOISE)[:200],)}, "[invalid_value:image]"),
        ({"images": (png(NOISE), png(NOISE))}, "[unsupported_option:image]"),
        ({"images": (png(NOISE),), "mask": png(HALF_MASK[:16])}, "[invalid_value:mask]"),
        ({"images": (png(NOISE),), "mask": png(HALF_MASK * 0)}, "[invalid_value:mask]"),
        ({"output_format": "bmp"}, "[invalid_value:output_format]"),
        ({"quality": 101}, "[invalid_value:quality]"),
        ({"partial_images": 4}, "[invalid_value:partial_images]"),
        ({"prompt": "cat " * 100_000}, "[context_length_exceeded:prompt]"),
        ({"negative_prompt": "a long text " * 20}, "[context_length_exceeded:negative_prompt]"),
        ({"negative_prompt": "blue"}, "[invalid_value:negative_prompt] This has no effect with a guidance_scale of 1;"),
        (
            {"negative_prompt": "blue", "guidance_scale": 0.5},
            "[invalid_value:negative_prompt] This has no effect with a guidance_scale of 0.5;",
        ),
    ],
)
def test_invalid_options_are_refused_by_name(tiny: TinyPipeline, options: dict[str, Any], message: str) -> None:
    with pytest.raises(GenerationError) as refusal:
        tiny.ask(**options).outcome()
    assert str(refusal.value).startswith(message)


def test_a_disconnect_frees_the_row_of_the_batch(tiny: TinyPipeline) -> None:
    tiny.components.calls.clear()
    tiny.components.gate.clear()
    sender = tiny.ask(steps=50)
    tiny.components.wait_for_call("text-encoder")
    tiny.components.gate.set()
    tiny.components.wait_for_call("denoiser")
    sender.disconnected = True
    with pytest.raises(Cancelled):
        sender.outcome()
    wait_for(lambda: tiny.stats.rows_active == 0)
    assert not sender.files


def test_too_many_images_are_refused(tiny: TinyPipeline) -> None:
    tiny.components.gate.clear()
    first = tiny.ask(num_images=5)
    with pytest.raises(Overloaded):
        tiny.ask(num_images=2).outcome()
    tiny.components.gate.set()
    assert len(first.outcome().files) == 5
    tiny.ask().outcome()


def test_waiting_images_are_bounded_in_bytes(tmp_path: Path) -> None:
    image = png(NOISE)
    with open_tiny_pipeline(tmp_path, "sd2", max_waiting_bytes=2 * len(image)) as tiny:
        tiny.components.gate.clear()
        first = tiny.ask(images=(image,))
        tiny.components.wait_for_call("text-encoder")
        with pytest.raises(Overloaded, match="MB of requests are waiting"):
            tiny.ask(images=(image,), mask=image).outcome()
        second = tiny.ask()  # it has no image, and is small enough
        tiny.components.gate.set()
        for sender in (first, second):
            assert len(sender.outcome().files) == 1
        # A request above the limit is admitted if none waits; requests that are preprocessed no longer count.
        assert len(tiny.ask(images=(image,), mask=image).outcome().files) == 1


def test_a_disconnect_frees_the_bytes_of_a_waiting_image(tmp_path: Path) -> None:
    image = png(NOISE)
    with open_tiny_pipeline(tmp_path, "sd2", max_waiting_bytes=2 * len(image) + 100) as tiny:
        tiny.components.gate.clear()
        first, second = tiny.ask(images=(image,)), tiny.ask(images=(image,))
        with pytest.raises(Overloaded):
            tiny.ask(images=(image,)).outcome()
        second.disconnected = True
        with pytest.raises(Cancelled):
            second.outcome()
        third = tiny.ask(images=(image,))
        tiny.components.gate.set()
        for sender in (first, third):
            assert len(sender.outcome().files) == 1


def test_a_component_that_fails_is_named_and_the_next_request_is_served(tiny: TinyPipeline, monkeypatch: Any) -> None:
    run = tiny.components.run

    def failing(name: str, inputs: Any, outputs: Any) -> Any:
        if name.endswith("vae-decoder"):
            raise EngineFailed(f"The component {name} failed: no memory")
        return run(name, inputs, outputs)

    with monkeypatch.context() as patched:
        patched.setattr(tiny.components, "run", failing)
        with pytest.raises(EngineFailed, match="tiny-vae-decoder failed: no memory"):
            tiny.ask(num_images=2).outcome()
    assert len(tiny.ask().outcome().files) == 1


def test_closing_fails_all_requests(tmp_path: Path) -> None:
    with open_tiny_pipeline(tmp_path, "sd2", max_rows=2) as tiny:
        tiny.components.gate.clear()
        senders = [tiny.ask(steps=50) for _ in range(4)]
        tiny.components.wait_for_call("text-encoder")
        closing = threading.Thread(target=tiny.frontend.close)
        closing.start()
        tiny.components.gate.set()
        closing.join(60)
        assert not closing.is_alive()
        for sender in senders:
            with pytest.raises(EngineFailed, match="unloaded"):
                sender.outcome()
        with pytest.raises(EngineFailed, match="unloaded"):
            tiny.ask().outcome()


def test_an_empty_negative_prompt_needs_no_guidance(tiny: TinyPipeline) -> None:
    assert len(tiny.ask(guidance_scale=1.0, negative_prompt="").outcome().files) == 1
    assert len(tiny.ask(guidance_scale=1.5, negative_prompt="blue").outcome().files) == 1


def test_seeds_end_at_64_bits(tiny: TinyPipeline) -> None:
    with pytest.raises(InvalidValue):
        tiny.ask(seed=2**64).outcome()
