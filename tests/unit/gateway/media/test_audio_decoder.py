import array
import base64
import math

import pytest

from gateway.errors import InvalidRequest
from gateway.media.loader import Audio
from tests.unit.gateway.media.media_samples import audio_tone, image_bytes


async def decode_audio(media, data: bytes, form: str = "wav") -> Audio:
    return await media.load_audio(base64.b64encode(data).decode(), form, param="input_audio.data")


async def refusal_message(media, data: bytes) -> str:
    with pytest.raises(InvalidRequest) as failure:
        await decode_audio(media, data)
    assert failure.value.param == "input_audio.data"
    return failure.value.message


def strength(samples: array.array, hertz: float) -> float:
    """The amplitude of a sine in the samples."""
    turn = 2 * math.pi * hertz / 16_000
    real = sum(value * math.cos(turn * at) for at, value in enumerate(samples))
    imaginary = sum(value * math.sin(turn * at) for at, value in enumerate(samples))
    return 2 * math.hypot(real, imaginary) / len(samples)


@pytest.mark.parametrize(
    ("form", "container", "codec", "rate"),
    [
        ("wav", "wav", "pcm_s16le", 44_100),
        ("mp3", "mp3", "libmp3lame", 44_100),
        ("flac", "flac", "flac", 22_050),
        ("ogg", "ogg", "libopus", 48_000),
        ("m4a", "ipod", "aac", 44_100),
        ("mp4", "mp4", "aac", 44_100),
        ("aac", "adts", "aac", 44_100),
        ("webm", "webm", "libopus", 48_000),
    ],
)
async def test_every_audio_format_decodes_to_the_same_samples(media, form, container, codec, rate):
    audio = await decode_audio(media, audio_tone(container, codec, rate=rate), form)
    samples = array.array("f", audio.data)
    assert audio.seconds == len(samples) / 16_000 == pytest.approx(1.0, abs=0.06)
    # Half the full scale on one of two sides is a quarter in the middle.
    middle = samples[2000:14_000]
    assert strength(middle, 440) == pytest.approx(0.25, abs=0.02)
    assert strength(middle, 880) < 0.01


async def test_the_declared_format_does_not_matter(media):
    assert (await decode_audio(media, audio_tone("flac", "flac"), "mp3")).seconds == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("rate", [44_100, 24_000, 8_000])  # MPEG-1, 2 and 2.5
async def test_an_mp3_that_begins_within_a_frame_is_recognized(media, rate):
    mp3 = audio_tone("mp3", "libmp3lame", rate=rate)
    for cut in (1000, 1001, 1500):
        rest = mp3[cut:]
        assert not rest.startswith((b"ID3", b"\xff"))
        audio = await decode_audio(media, rest)
        assert audio.seconds == pytest.approx(len(rest) / len(mp3), abs=0.2)
        assert strength(array.array("f", audio.data)[4000:8000], 440) == pytest.approx(0.25, abs=0.02)
    assert "text or an unknown file type" in await refusal_message(media, b"\xa0" + b"\xff\xfb\x90\x00" * 2000)


async def test_files_without_audio_are_refused(media, make_media):
    assert "expected an audio file" in await refusal_message(media, image_bytes())
    assert "expected an audio file" in await refusal_message(media, b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n")
    assert "damaged" in await refusal_message(media, b"RIFF\x10\0\0\0WAVEjunk" + b"\xff" * 100)
    assert "not valid base64" in (await refusal_of(media, "%%"))
    assert "not a URL" in (await refusal_of(media, "https://example.com/a.wav"))
    short = make_media(sound_max_seconds=0.5)
    assert "longer than the limit of 0.5 seconds" in await refusal_message(short, audio_tone("wav", "pcm_s16le"))


async def refusal_of(media, reference: str) -> str:
    with pytest.raises(InvalidRequest) as failure:
        await media.load_audio(reference, "wav", param="p")
    return failure.value.message


async def test_audio_is_refused_by_name_of_the_extra_where_pyav_is_not_installed(media, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    message = await refusal_message(media, audio_tone("wav", "pcm_s16le"))
    assert message.endswith("this gateway decodes no audio, as its extra 'audio' (PyAV) is not installed.")
