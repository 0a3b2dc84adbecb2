"""Recordings whose header is wrong, and files that hold more than one recording: read sensibly, or a 400."""

import gzip
import struct
from collections.abc import AsyncIterator, Callable

import httpx
import numpy as np
import pytest
import pytest_asyncio

from tests.fakes.scripted_model import Listen, ScriptedModel
from tests.fakes.sound_files import sound_file
from tests.fakes.triton import FakeTriton
from tests.wire.gateway_server import RunningGateway, run_gateway
from tests.wire.openai.text_requests import check_error

pytestmark = pytest.mark.asyncio(loop_scope="session")

PATH = "/v1/audio/transcriptions"
HELLO = "u12 u20"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def gateway() -> AsyncIterator[RunningGateway]:
    triton = await FakeTriton([ScriptedModel("ear", (Listen(),), is_transcription_model=True)]).start()
    async with run_gateway(triton.url, recording_max_seconds=3 * 3600, recording_max_bytes=16_000_000) as running:
        running.http.timeout = httpx.Timeout(20)
        yield running
    await triton.stop()


async def post(gateway: RunningGateway, data: bytes) -> httpx.Response:
    return await gateway.http.post(PATH, data={"model": "ear"}, files={"file": ("a.wav", data)})


def wav(
    rate: int = 16_000,
    *,
    channels: int = 1,
    bits: int = 16,
    kind: int = 1,
    align: int | None = None,
    data: bytes = b"\x10\x20" * 8000,
    size: int | None = None,
) -> bytes:
    """Return a WAV file with this header, which may contradict itself; by default half a second that is loud."""
    block = channels * bits // 8 if align is None else align
    header = struct.pack("<HHIIHH", kind, channels, rate, rate * block & 0xFFFFFFFF, block, bits)
    length = len(data) if size is None else size
    body = b"WAVEfmt " + struct.pack("<I", len(header)) + header + b"data" + struct.pack("<I", length) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def tagged_mp3(tag_bytes: int) -> bytes:
    """Return an MP3 file behind an ID3 tag of so many bytes, such as a large picture."""
    length = bytes(tag_bytes >> shift & 127 for shift in (21, 14, 7, 0))
    return b"ID3\x03\0\0" + length + bytes(tag_bytes) + mp3()


def mp3() -> bytes:
    return sound_file("mp3", "libmp3lame", rate=44_100)


def opus() -> bytes:
    return sound_file("ogg", "libopus", rate=48_000)


DAMAGED: dict[str, bytes] = {
    "0 Hz": wav(0),
    "4 GHz": wav(4_000_000_000),
    "no channels": wav(channels=0),
    "65,535 channels": wav(channels=65_535, align=2),
    "no bits": wav(bits=0, align=2),
    "an unknown codec": wav(kind=0xFFFF),
    "no samples": wav(data=b""),
    # 16,000 samples that would last more than four hours.
    "1 Hz": wav(1, data=bytes(32_000)),
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED)
async def test_headers_that_make_no_sense_are_refused(gateway: RunningGateway, data: bytes) -> None:
    check_error(await post(gateway, data), 400, code="invalid_value", param="file")


READ: dict[str, tuple[Callable[[], bytes], str]] = {
    "a length of 4 GB": (lambda: wav(size=0xFFFFFFFF), "u5"),
    "384 kHz": (lambda: wav(384_000, data=b"\x10\x20" * 192_000), "u5"),
    "64 bits that are no numbers": (
        lambda: wav(kind=3, bits=64, data=struct.pack("<4d", 0.5, float("nan"), float("-inf"), 1e300) * 4000),
        "u10",
    ),
    "two Ogg files": (lambda: opus() * 2, f"{HELLO} {HELLO}"),
    "two MP3 files": (lambda: mp3() * 2, f"{HELLO} {HELLO}"),
    "a tag of 10 MB": (lambda: tagged_mp3(10_000_000), HELLO),
    "zeros before an MP3": (lambda: bytes(200) + mp3(), HELLO),
    "noise in an MP3": (lambda: mp3()[:4000] + b"\x12\x34" * 50_000 + mp3()[4000:], HELLO),
    "WebM without its end": (lambda: sound_file("webm", "libopus", rate=48_000)[:-300], HELLO),
}


@pytest.mark.parametrize("name", READ)
async def test_odd_files_are_read(gateway: RunningGateway, name: str) -> None:
    make, text = READ[name]
    response = await post(gateway, make())
    assert response.status_code == 200, response.text
    assert response.json()["text"] == text


async def test_three_hours_have_their_times(gateway: RunningGateway) -> None:
    quarter = np.full(900 * 1000, 128, np.uint8)
    quarter[890_000:892_000] += (100 * np.sin(np.arange(2000) * 1.3)).astype(np.int8).view(np.uint8)
    data = wav(1000, bits=8, data=quarter.tobytes() * 12)
    files, fields = {"file": ("a.wav", data)}, {"model": "ear", "response_format": "verbose_json"}
    answer = (await gateway.http.post(PATH, data=fields, files=files)).json()
    assert answer["duration"] == 3 * 3600
    starts = [segment["start"] for segment in answer["segments"]]
    assert starts == pytest.approx([890 + 900 * number for number in range(12)], abs=0.05)


async def test_a_form_that_is_large_when_it_is_unpacked(gateway: RunningGateway) -> None:
    files = {"file": ("a.wav", bytes(100_000_000))}
    request = gateway.http.build_request("POST", PATH, data={"model": "ear"}, files=files)
    body = gzip.compress(request.read(), 1)
    assert len(body) < 1_000_000
    headers = {"Content-Type": request.headers["content-type"], "Content-Encoding": "gzip"}
    answer = await gateway.http.post(PATH, content=body, headers=headers)
    check_error(answer, 413, code="request_too_large")
