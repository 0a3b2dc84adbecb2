"""Requests for videos from admission to the last response: refusals, references, disconnects, encoders and closing."""

import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from backends.diffusion.images import tensor_to_pixels
from backends.serving.errors import Cancelled, EngineFailed, GenerationError, Overloaded, UnsupportedOption
from tests.unit.diffusion.tiny_pipeline import wait_for
from tests.unit.diffusion.video.tiny_video import (
    HEIGHT,
    WIDTH,
    TinyVideoPipeline,
    has_nvenc,
    open_tiny_video,
    picture,
    read_video,
)

NOISE = np.random.default_rng(1).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
FRAME = picture(NOISE)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TinyVideoPipeline]:
    with open_tiny_video(tmp_path_factory.mktemp("frontend"), "ti2v-small", max_rows=4, max_waiting=6) as opened:
        yield opened


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_frames": 0}, "[invalid_value:num_frames]"),
        ({"num_frames": -1}, "[invalid_value:num_frames]"),
        ({"num_frames": 34}, "[invalid_value:num_frames] This model generates 1 to 33 frames, not 34."),
        ({"num_frames": 9, "frames": (FRAME,) * 8}, "[invalid_value:num_frames] This must be at most the number"),
        ({"fps": 0}, "[invalid_value:fps]"),
        ({"fps": 61}, "[invalid_value:fps]"),
        ({"steps": 51}, "[invalid_value:steps]"),
        ({"width": 40}, "[invalid_value:width] This model does not generate videos of 40x32"),
        ({"width": 10**6}, "[invalid_value:width]"),
        ({"quality": 101}, "[invalid_value:quality]"),
        ({"partial_images": 4}, "[invalid_value:partial_images]"),
        ({"guidance_scale": float("inf")}, "[invalid_value:guidance_scale]"),
        ({"strength": 0.5}, "[invalid_value:strength]"),
        ({"strength": 0.5, "images": (FRAME,)}, "[invalid_value:strength]"),
        ({"strength": 0.0, "frames": (FRAME,)}, "[invalid_value:strength]"),
        ({"images": (FRAME, FRAME)}, "[unsupported_option:image]"),
        ({"images": (FRAME,), "frames": (FRAME,)}, "[unsupported_option:frames]"),
        ({"images": (b"x",)}, "[invalid_value:image]"),
        ({"frames": (FRAME, b"x", *(FRAME,) * 3)}, "[invalid_value:frames]"),
        ({"frames": (FRAME[:99],)}, "[invalid_value:frames]"),
        ({"prompt": "cat " * 100_000}, "[context_length_exceeded:prompt]"),
        ({"seed": 2**64}, "[invalid_value:seed]"),
    ],
)
def test_invalid_options_are_refused_by_name(tiny: TinyVideoPipeline, options: dict[str, Any], message: str) -> None:
    with pytest.raises(GenerationError) as refusal:
        tiny.ask(**options).outcome()
    assert str(refusal.value).startswith(message)


def test_a_model_refuses_references_that_it_does_not_take(tmp_path: Path) -> None:
    with open_tiny_video(tmp_path, "t2v", references="[]") as tiny:
        with pytest.raises(UnsupportedOption, match=r"\[unsupported_option:image\]"):
            tiny.ask(images=(FRAME,)).outcome()
        with pytest.raises(UnsupportedOption, match=r"\[unsupported_option:frames\]"):
            tiny.ask(frames=(FRAME,)).outcome()


def test_a_model_whose_denoiser_needs_an_image_asks_for_it(tmp_path: Path) -> None:
    with open_tiny_video(tmp_path, "i2v") as tiny:
        with pytest.raises(GenerationError, match=r"\[invalid_value:image\] This model needs an image"):
            tiny.ask().outcome()
        assert tiny.ask(images=(picture(NOISE[:1]),)).outcome().video  # sides of one and 64 pixels


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"references": '["image"]'}, "references has image"),
        ({"references": '["sound"]'}, "references is"),
        ({"default_num_frames": 34}, "default_num_frames does not fit"),
        ({"max_num_frames": 32}, "max_num_frames is 32"),
        ({"frame_multiple": 6}, "frame_multiple is 6"),
        ({"max_fps": 5}, "default_fps is 8, above max_fps, 5"),
        ({"video_encoder": "h265"}, "The video encoder 'h265' is not known"),
        pytest.param(
            {"video_encoder": "h264_nvenc"},
            "No video encoder works: h264_nvenc: ",
            marks=pytest.mark.skipif(has_nvenc(), reason="NVENC works here"),
        ),
    ],
)
def test_wrong_parameters_end_the_load_with_a_sentence(
    tmp_path: Path, parameters: dict[str, Any], message: str
) -> None:
    threads = threading.active_count()
    with pytest.raises(ValueError, match=message), open_tiny_video(tmp_path, "t2v", **parameters):
        pass
    assert threading.active_count() == threads


@pytest.mark.parametrize("encoder", ["libx264", "libsvtav1", "libvpx-vp9"])
def test_the_encoder_is_a_setting(tmp_path: Path, encoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITONIC_VIDEO_ENCODER", encoder)
    with open_tiny_video(tmp_path, "t2v") as tiny:
        frames, seconds, codec = read_video(tiny.ask(fps=10, num_frames=9).outcome().video)
        assert (len(frames), seconds) == (9, 0.9)
        assert codec in {"libx264": "h264", "libsvtav1": "av1", "libvpx-vp9": "vp9"}[encoder]


def test_the_number_of_frames_and_the_size_follow_the_video_that_was_sent(tiny: TinyVideoPipeline) -> None:
    tall = picture(np.zeros((70, 45, 3), np.uint8))
    sender = tiny.ask(frames=(tall,) * 8).outcome()
    assert (sender.num_frames, sender.size) == (8, (48, 64))
    assert sender.frames().shape == (8, 64, 48, 3)
    sender = tiny.ask(frames=(tall,) * 8, num_frames=1, width=32, height=32).outcome()
    assert (sender.num_frames, sender.size) == (1, (32, 32))
    assert tiny.ask(images=(tall,)).outcome().size == (48, 64)


@pytest.mark.parametrize("num_frames", [1, 2, 4, 5, 8])
@pytest.mark.parametrize("reference", ["", "images", "frames"])
def test_a_video_has_as_many_frames_as_were_asked_for(tiny: TinyVideoPipeline, num_frames: int, reference: str) -> None:
    """The frames are the first of those of the model, which generates whole latent frames."""
    files = (FRAME,) * (num_frames if reference == "frames" else 1)
    references: dict[str, Any] = {reference: files} if reference else {}
    sender = tiny.ask(num_frames=num_frames, seed=5, steps=2, fps=8, **references).outcome()
    frames, seconds, _ = read_video(sender.video)
    assert (sender.num_frames, len(frames), seconds) == (num_frames, num_frames, num_frames / 8)
    decoded = np.concatenate(tiny.decoded.pop(5), axis=1)[:, :num_frames]
    assert np.abs(tensor_to_pixels(decoded).astype(int) - frames).mean() < 12


def test_the_strength_determines_the_number_of_steps(tiny: TinyVideoPipeline) -> None:
    tiny.components.calls.clear()
    tiny.ask(frames=(FRAME,) * 5, strength=0.5, steps=10).outcome()
    assert len(tiny.components.batches("denoiser")) == 5
    assert tiny.components.batches("vae-encoder-next") == [1]


def test_a_transparent_first_frame_is_filled(tiny: TinyVideoPipeline) -> None:
    clear = np.dstack([NOISE, np.zeros((HEIGHT, WIDTH), np.uint8)])
    grey = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    senders = [tiny.ask(images=(picture(pixels),), seed=1).outcome() for pixels in (clear, grey)]
    assert np.abs(senders[0].frames().astype(int) - senders[1].frames()).mean() < 2


def test_previews_come_before_the_video(tiny: TinyVideoPipeline) -> None:
    sender = tiny.ask(steps=12, partial_images=3, seed=1).outcome()
    assert [number for number, _ in sender.previews] == [0, 1, 2]
    shown = Image.open(io.BytesIO(sender.previews[-1][1]))
    assert (shown.format, shown.size) == ("WEBP", (WIDTH, HEIGHT))
    expected = sender.frames()[0].astype(int)
    distances = [np.abs(np.asarray(Image.open(io.BytesIO(file))) - expected).mean() for _, file in sender.previews]
    assert max(distances) < 10 < expected.std()


def test_a_preview_shows_more_than_the_given_first_frame(tiny: TinyVideoPipeline) -> None:
    tiny.components.calls.clear()
    sender = tiny.ask(steps=4, partial_images=1, images=(FRAME,)).outcome()
    assert len(sender.previews) == 1
    # The second latent frame of the preview and that of the video, which may share a run.
    assert sum(tiny.components.batches("vae-decoder-next")) == 2


def test_random_seeds_are_reported_and_give_the_video_again(tiny: TinyVideoPipeline) -> None:
    first = tiny.ask().outcome()
    again = tiny.ask(seed=first.seed).outcome()
    assert np.abs(again.frames().astype(int) - first.frames()).max() <= 2


def test_a_disconnect_while_frames_are_decoded_ends_the_decoding(
    tiny: TinyVideoPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.components.calls.clear()
    sender = tiny.ask(num_frames=33, steps=1)
    tiny.components.wait_for_call("vae-decoder-next")
    tiny.components.gate.clear()
    sender.disconnected = True
    with pytest.raises(Cancelled):
        sender.outcome()
    tiny.components.gate.set()
    tiny.ask(steps=1).outcome()
    assert len(tiny.components.batches("vae-decoder-next")) < 8
    assert not sender.video


def test_the_decoder_does_not_run_ahead_of_the_encoder(
    tiny: TinyVideoPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the video: memory holds a few frames of it."""
    gate, opened = threading.Event(), tiny.frontend.open_file

    def open_slowly(*arguments: Any) -> Any:
        assert gate.wait(60)
        return opened(*arguments)

    monkeypatch.setattr(tiny.frontend, "open_file", open_slowly)
    before = tiny.stats.frames
    sender = tiny.ask(num_frames=33, steps=1)
    wait_for(lambda: tiny.stats.frames - before == 5)
    gate.wait(0.2)
    assert tiny.stats.frames - before == 5
    gate.set()
    assert len(sender.outcome().frames()) == 33
    assert tiny.stats.frames - before == 33


def test_an_encoder_that_fails_ends_its_request_alone(tiny: TinyVideoPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("backends.diffusion.video.mp4_file.Mp4File.finish", lambda self: 1 / 0)
        with pytest.raises(EngineFailed, match="The video could not be generated: division by zero"):
            tiny.ask().outcome()
    videos = tiny.stats.videos
    assert tiny.ask().outcome().video
    assert tiny.stats.videos == videos + 1


def test_too_many_videos_are_refused(tiny: TinyVideoPipeline) -> None:
    tiny.components.gate.clear()
    senders = [tiny.ask(steps=1) for _ in range(6)]
    with pytest.raises(Overloaded, match="6 videos are being generated"):
        tiny.ask(steps=1).outcome()
    tiny.components.gate.set()
    for sender in senders:
        assert sender.outcome().video


def test_waiting_frames_are_bounded_in_bytes(tmp_path: Path) -> None:
    with open_tiny_video(tmp_path, "ti2v-small", max_waiting_bytes=6 * len(FRAME)) as tiny:
        tiny.components.gate.clear()
        first = tiny.ask(frames=(FRAME,) * 5, steps=2)
        tiny.components.wait_for_call("text-encoder")
        with pytest.raises(Overloaded, match="MB of requests are waiting"):
            tiny.ask(frames=(FRAME,) * 5).outcome()
        tiny.components.gate.set()
        assert first.outcome().video
        assert tiny.ask(frames=(FRAME,) * 9, steps=2).outcome().video


def test_closing_fails_videos_that_are_not_finished(tmp_path: Path) -> None:
    with open_tiny_video(tmp_path, "t2v", max_rows=2) as tiny:
        decoding = tiny.ask(steps=1, num_frames=33)
        tiny.components.wait_for_call("vae-decoder-first")
        tiny.components.gate.clear()
        senders = [tiny.ask(steps=50) for _ in range(3)]
        closing = threading.Thread(target=tiny.frontend.close)
        closing.start()
        tiny.components.gate.set()
        closing.join(60)
        assert not closing.is_alive()
        for sender in (decoding, *senders):
            with pytest.raises(EngineFailed, match="unloaded"):
                sender.outcome()
