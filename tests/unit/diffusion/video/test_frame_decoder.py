"""The decoding of latents to frames: batches, turns, caches, readers that are slow, and failures."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from backends.diffusion.pipeline_config import PipelineConfig, Vae, VideoParts
from backends.diffusion.stats import Stats
from backends.diffusion.video.frame_decoder import FrameDecoder, FrameStream
from tests.unit.diffusion.scripted_denoiser import recorded_job

CHANNELS, FACTOR = 2, 8
VAE = Vae(scaling_factor=1.0, factor=FACTOR, channels=CHANNELS, temporal_factor=4)
PARTS = VideoParts("next", None, 2, 0, False, "none")
CONFIG = PipelineConfig("wan", (), "denoiser", None, "first", (), {}, VAE, 16, max_batch=4, video=PARTS)
SMALL, LARGE = (2, 3), (128, 128)
"""Heights and widths in latent cells; a chunk of the large one fills a batch."""


class ScriptedVae:
    """A decoder whose frames hold the number of the latent, and whose caches sum up the numbers of a stream."""

    def __init__(self) -> None:
        self.gate = threading.Semaphore(0)
        self.begun = threading.Semaphore(0)
        self.calls: list[tuple[str, list[int]]] = []

    def run(self, name: str, inputs: Mapping[str, Any], outputs: Sequence[str]) -> dict[str, Any]:
        numbers = inputs["latent"][:, 0, 0, 0, 0]
        self.calls.append((name, numbers.astype(int).tolist()))
        self.begun.release()
        assert self.gate.acquire(timeout=60)
        if 99 in numbers:
            raise RuntimeError("the network is broken")
        n, _, _, height, width = inputs["latent"].shape
        before = np.zeros((n, 1), np.float32) if name == "first" else inputs["cache_0"]
        if name == "next":
            assert (inputs["cache_1"] == -before).all()
        total = before + numbers[:, None]
        shape = (n, 3, 1 if name == "first" else 4, height * FACTOR, width * FACTOR)
        found = {"video": np.broadcast_to(total[:, :, None, None, None], shape)}
        found |= {"cache_out_0": total, "cache_out_1": -total}
        assert set(outputs) in ({"video"}, set(found))
        return {output: found[output] for output in outputs}

    def finish(self, calls: int) -> None:
        """Let `calls` calls end, one after another."""
        for _ in range(calls):
            assert self.begun.acquire(timeout=60)
            self.gate.release()


@dataclass
class Viewer:
    """A stream whose latent frames all hold `number`, and what has come of it."""

    number: int
    length: int
    area: tuple[int, int] = SMALL
    values: list[float] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)
    reads: bool = True
    decoder: FrameDecoder | None = None

    def __post_init__(self) -> None:
        self.recorded = recorded_job(self.number)
        latent = np.full((CHANNELS, self.length, *self.area), self.number, np.float32)
        self.stream = FrameStream(self.recorded.job, latent, self.on_frames)

    def on_frames(self, frames: Any, is_last: bool) -> None:
        self.values.append(float(frames[0, 0, 0, 0]))
        self.counts.append(frames.shape[1])
        if self.reads:
            assert self.decoder is not None
            self.decoder.frames_read(self.stream)
        if is_last:
            self.ended.set()


@pytest.fixture
def vae() -> ScriptedVae:
    return ScriptedVae()


@pytest.fixture
def decoder(vae: ScriptedVae) -> Iterator[FrameDecoder]:
    decoder = FrameDecoder(vae, CONFIG, Stats())
    yield decoder
    vae.gate.release(10_000)
    decoder.close()


def submit(decoder: FrameDecoder, *viewers: Viewer) -> None:
    for viewer in viewers:
        viewer.decoder = decoder
    decoder.submit([viewer.stream for viewer in viewers])


def test_each_stream_gets_its_frames_in_order_with_its_own_caches(vae: ScriptedVae, decoder: FrameDecoder) -> None:
    viewers = [Viewer(1, 4), Viewer(2, 3), Viewer(3, 1)]
    submit(decoder, *viewers)
    vae.gate.release(100)
    for viewer in viewers:
        assert viewer.ended.wait(60)
    assert viewers[0].values == [1, 2, 3, 4]
    assert viewers[1].values == [2, 4, 6]
    assert viewers[2].values == [3]
    assert viewers[0].counts == [1, 4, 4, 4]
    assert vae.calls == [("first", [1, 2, 3]), ("next", [1, 2]), ("next", [1, 2]), ("next", [1])]


def test_a_long_video_does_not_delay_a_short_one(vae: ScriptedVae, decoder: FrameDecoder) -> None:
    long, short = Viewer(1, 50), Viewer(2, 2)
    submit(decoder, long)
    vae.finish(3)
    assert vae.begun.acquire(timeout=60)
    submit(decoder, short)
    vae.gate.release()
    vae.finish(3)
    assert short.ended.wait(60)
    assert not long.ended.is_set()
    assert len(vae.calls) <= 8


def test_few_large_videos_are_begun_at_once(vae: ScriptedVae, decoder: FrameDecoder) -> None:
    """Each has caches; a preview, which is one frame, needs none."""
    viewers = [Viewer(number, 3, LARGE) for number in (1, 2, 3)]
    submit(decoder, *viewers)
    preview = Viewer(7, 1, LARGE)
    vae.finish(1)
    submit(decoder, preview)
    vae.gate.release(100)
    for viewer in (*viewers, preview):
        assert viewer.ended.wait(60)
    order = [numbers[0] for _, numbers in vae.calls]
    assert all(len(numbers) == 1 for _, numbers in vae.calls)
    assert order.index(7) < order.index(3)
    first_of_third = order.index(3)
    assert order[:first_of_third].count(1) == 3 or order[:first_of_third].count(2) == 3


def test_a_video_whose_frames_are_not_read_waits(vae: ScriptedVae, decoder: FrameDecoder) -> None:
    unread, other = Viewer(1, 10, reads=False), Viewer(2, 6)
    submit(decoder, unread, other)
    vae.gate.release(100)
    assert other.ended.wait(60)
    assert unread.values == [1, 2]
    unread.reads = True
    for _ in unread.values[:2]:
        decoder.frames_read(unread.stream)
    assert unread.ended.wait(60)
    assert len(unread.values) == 10


def test_a_cancelled_video_is_not_decoded_further(vae: ScriptedVae, decoder: FrameDecoder) -> None:
    leaver, stayer = Viewer(1, 50), Viewer(2, 3)
    submit(decoder, leaver, stayer)
    vae.finish(1)
    assert vae.begun.acquire(timeout=60)
    leaver.recorded.job.ended = True
    vae.gate.release(100)
    assert stayer.ended.wait(60)
    assert sum(1 in numbers for _, numbers in vae.calls) == 2
    assert leaver.recorded.error is None


def test_a_video_at_fault_fails_alone(vae: ScriptedVae, decoder: FrameDecoder) -> None:
    bad, good = Viewer(99, 3), Viewer(2, 3)
    submit(decoder, bad, good)
    vae.gate.release(100)
    assert good.ended.wait(60)
    assert bad.recorded.ended.wait(60)
    assert "broken" in str(bad.recorded.error)
    assert good.values == [2, 4, 6]
    assert good.recorded.error is None
