"""The upscaling backend without Triton and without a network: a scripted network and recording senders."""

import io
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image

from backends.serving.errors import GenerationError
from backends.upscaling.options import Options, read_options
from backends.upscaling.request_frontend import Request, UpscalingFrontend
from backends.upscaling.scheduler import UpscaleScheduler

OPTIONS = Options(
    network_scale=4, scales=(2, 4), tile=16, overlap=2, max_pixels=10_000, max_output_pixels=80_000, max_waiting=3
)
BROKEN = 250
"""Value of the first pixel of a window with which the network fails."""


class RepeatingNetwork:
    """Repeats each pixel. It waits at `gate`, and records the number of windows of each run and their colours."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.begun = threading.Event()
        self.runs: list[list[int]] = []

    def upscale(self, windows: Sequence[np.ndarray]) -> np.ndarray:
        self.runs.append([int(window[-1, -1, 2]) for window in windows])
        self.begun.set()
        assert self.gate.wait(60)
        if any(window[0, 0, 0] == BROKEN for window in windows):
            raise RuntimeError("the network is broken")
        pictures = np.stack([window.transpose(2, 0, 1) for window in windows]).astype(np.float32) / 255
        return pictures.repeat(4, 2).repeat(4, 3)


class RecordingSender:
    """A response sender that records its responses."""

    def __init__(self) -> None:
        self.disconnected = False
        self.answered = threading.Event()
        self.progress: list[float] = []
        self.outcome: tuple[bytes, int, int] | GenerationError | None = None

    def is_cancelled(self) -> bool:
        return self.disconnected

    def send_progress(self, fraction: float) -> None:
        assert not self.answered.is_set()
        self.progress.append(fraction)

    def send(self, image: bytes, width: int, height: int) -> None:
        self._answer((image, width, height))

    def fail(self, error: GenerationError) -> None:
        self._answer(error)

    def _answer(self, outcome: Any) -> None:
        assert not self.answered.is_set(), "a second last response"
        self.outcome = outcome
        self.answered.set()

    def error(self) -> str:
        assert self.answered.wait(60)
        assert isinstance(self.outcome, GenerationError)
        return str(self.outcome)

    def picture(self) -> Image.Image:
        assert self.answered.wait(60)
        assert isinstance(self.outcome, tuple), self.outcome
        data, *size = self.outcome
        image = Image.open(io.BytesIO(data))
        assert image.size == tuple(size)
        return image


Make = Callable[..., UpscalingFrontend]


@pytest.fixture
def network() -> RepeatingNetwork:
    return RepeatingNetwork()


@pytest.fixture
def frontends(network: RepeatingNetwork) -> Iterator[Make]:
    made: list[UpscalingFrontend] = []

    def make(threads: int = 1, max_rows: int = 1) -> UpscalingFrontend:
        made.append(UpscalingFrontend(UpscaleScheduler(network, threads, max_rows), OPTIONS))
        return made[-1]

    yield make
    network.gate.set()
    for frontend in made:
        frontend.close()


def file(image: Image.Image | tuple[int, int], form: str = "PNG", colour: Any = (10, 20, 30)) -> bytes:
    if isinstance(image, tuple):
        image = Image.new("RGB", image, colour)
    data = io.BytesIO()
    image.save(data, form)
    return data.getvalue()


def send(frontend: UpscalingFrontend, image: bytes | None = None, **fields: Any) -> RecordingSender:
    sender = RecordingSender()
    frontend.add_request(Request(file((40, 30)) if image is None else image, **fields), sender)
    return sender


@pytest.mark.parametrize("max_rows", [1, 3])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_picture_comes_back_larger(frontends: Make, threads: int, max_rows: int) -> None:
    frontend = frontends(threads, max_rows)
    pixels = np.random.default_rng(0).integers(0, 249, (30, 70, 3), np.uint8)
    senders = {scale: send(frontend, file(Image.fromarray(pixels)), scale=scale) for scale in (2, 4)}
    for scale, sender in senders.items():
        assert np.array_equal(np.asarray(sender.picture()), pixels.repeat(scale, 0).repeat(scale, 1))
        assert sender.progress == sorted(sender.progress) and sender.progress[-1] == 1
        assert len(sender.progress) == 10  # tiles
    assert frontend.scheduler.stats.tiles == 20 and frontend.scheduler.stats.requests_waiting == 0


@pytest.mark.parametrize("form", ["png", "webp"])
def test_transparency_is_kept_and_does_not_colour_what_is_visible(frontends: Make, form: str) -> None:
    """A red square, with transparent green around it."""
    image = Image.new("RGBA", (40, 30), (0, 255, 0, 0))
    image.paste((240, 0, 0, 255), (10, 10, 30, 20))
    made = send(frontends(), file(image), scale=2, output_format=form, quality=100).picture()
    assert made.mode == "RGBA" and made.format == form.upper()
    pixels = np.asarray(made).astype(int)
    assert pixels[30, 40].tolist()[3] == 255 and pixels[2, 2, 3] == 0
    visible = pixels[pixels[..., 3] > 8]
    assert visible[:, 1].max() < 12 and visible[:, 0].min() > 225


def test_jpeg_shows_white_where_a_picture_is_transparent(frontends: Make) -> None:
    made = send(frontends(), file(Image.new("RGBA", (8, 8), (0, 255, 0, 0))), output_format="jpeg").picture()
    assert (made.mode, made.format) == ("RGB", "JPEG") and np.asarray(made).min() > 250


def test_a_small_picture_does_not_wait_for_a_large_one(frontends: Make, network: RepeatingNetwork) -> None:
    """They take turns by the tile."""
    frontend = frontends()
    network.gate.clear()
    large = send(frontend, file((70, 70), colour=(1, 1, 1)))
    assert network.begun.wait(60)
    small = send(frontend, file((20, 40), colour=(2, 2, 2)))
    deadline = time.monotonic() + 60
    while frontend.scheduler.stats.requests_waiting < 2:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    network.gate.set()
    small.picture()
    large.picture()
    colours = [colour for (colour,) in network.runs]
    assert colours[:7] == [1, 1, 2, 1, 2, 1, 2] or colours[:6] == [1, 2, 1, 2, 1, 2], colours


def test_a_disconnect_ends_the_work_between_tiles(frontends: Make, network: RepeatingNetwork) -> None:
    frontend = frontends()
    network.gate.clear()
    sender = send(frontend, file((90, 90)))
    assert network.begun.wait(60)
    sender.disconnected = True
    assert "[cancelled]" in sender.error()
    network.gate.set()
    other = send(frontend)
    other.picture()
    assert len(network.runs) < 36 and frontend.scheduler.stats.requests_cancelled == 1
    assert frontend.active_size == 0


def test_a_broken_tile_fails_its_own_request(frontends: Make, network: RepeatingNetwork) -> None:
    frontend = frontends(max_rows=4)
    network.gate.clear()
    first = send(frontend, file((10, 10)))
    assert network.begun.wait(60)
    broken, whole = send(frontend, file((20, 20), colour=(BROKEN, 0, 0))), send(frontend, file((20, 20)))
    network.gate.set()
    assert "[engine_failed] The picture could not be upscaled: the network is broken" in broken.error()
    assert whole.picture().size == (40, 40) and first.picture().size == (20, 20)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"image": b""}, "[invalid_value:image] There must be a picture."),
        ({"image": b"no picture"}, "[invalid_value:image] This is no PNG"),
        ({"scale": 3}, "[unsupported_option:scale] This model upscales by 2 or 4, not by 3."),
        ({"output_format": "gif"}, "[invalid_value:output_format]"),
        ({"quality": 101}, "[invalid_value:quality]"),
        ({"image": file((101, 100))}, "at most 10000 by 2"),
        ({"image": file((71, 71)), "scale": 4}, "at most 5000 by 4"),
    ],
)
def test_refusals_name_the_input(frontends: Make, fields: dict[str, Any], words: str) -> None:
    assert words in send(frontends(), **fields).error()


def test_the_queue_is_bounded_and_closing_answers_everybody(frontends: Make, network: RepeatingNetwork) -> None:
    frontend = frontends()
    network.gate.clear()
    senders = [send(frontend) for _ in range(4)]
    assert network.begun.wait(60)
    assert "[overloaded]" in send(frontend).error()
    threading.Timer(0.2, network.gate.set).start()
    frontend.close()
    assert all("unloaded" in sender.error() for sender in senders)
    assert "unloaded" in send(frontend).error()


def test_options_are_read_and_checked() -> None:
    def read(**values: str) -> Options:
        return read_options({name: {"string_value": value} for name, value in values.items()})

    assert read(network_scale="4", scales="[4, 2]", tile="128", overlap="32", feather="16").scales == (2, 4)
    for wrong, name in (
        ({"scales": "[2]"}, "network_scale"),
        ({"network_scale": "4", "scales": "[3]"}, "scales"),
        ({"network_scale": "4", "scales": "4"}, "scales"),
        ({"network_scale": "4", "overlap": "8", "feather": "9"}, "feather"),
        ({"network_scale": "4", "engine": "tensorrt"}, "network"),
        ({"network_scale": "4", "engine": "other"}, "engine"),
    ):
        with pytest.raises(ValueError, match=f"parameter {name} "):
            read(**wrong)
