"""Attacks by videos that take seconds or gigabytes to decode."""

from collections.abc import Callable
from functools import cache

from tests.attack.cases.case import REFUSAL_STATUSES, Attack, AttackCase, Target
from tests.attack.raw_http import multipart_body
from tests.fakes.video_model import noise_video, video_file

_TYPE = "multipart/form-data; boundary=attack-7e57"
_FIELDS: list[tuple[str, str | None, bytes]] = [
    ("model", None, b"film"), ("prompt", None, b"x"), ("size", None, b"1280x720")]  # fmt: skip


@cache
def oversized_gif() -> bytes:
    """Return a GIF whose header declares 256 million pixels."""
    data = bytearray(video_file((64, 64), 4, 8, container="gif", codec="gif"))
    data[6:10] = (16_000).to_bytes(2, "little") * 2
    return bytes(data)


@cache
def large_frames() -> bytes:
    """Return a video of 8K."""
    return video_file((7680, 4320), 2, 8, codec="mpeg4")


@cache
def slow_video() -> bytes:
    """Return a video of 4K, of which a model reads each frame."""
    return video_file((3840, 2160), 9, 8, codec="mpeg4")


def start_from(data: Callable[[], bytes], times: int = 1) -> Attack:
    """Send a video to change, `times` times at once."""

    def attack(target: Target) -> None:
        form = multipart_body([*_FIELDS, ("input_reference", "a.mp4", data())])
        target.run_concurrently(times, lambda _: target.post("/v1/videos", form, content_type=_TYPE))

    return attack


def _video_case(name: str, data: Callable[[], bytes], times: int = 1) -> AttackCase:
    return AttackCase(
        f"videos: {name}",
        start_from(data, times),
        (200, *REFUSAL_STATUSES),
        honest_requests=("chat", "picture"),
        in_soak=False,
        prepare=data,
    )


CASES = [
    _video_case("a GIF of 256 million pixels", oversized_gif),
    _video_case("8K", large_frames),
    _video_case("three of 4K at once", slow_video, 3),
    _video_case("noise whose frames have 20 MB", noise_video),
    _video_case("six of them at once", noise_video, 6),
]
