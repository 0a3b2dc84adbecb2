"""Transcriptions and translations: fields, formats, streams, containers, and recordings that cannot be used."""

import asyncio
import base64
import gzip
import io
import json
import math
import zipfile
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import openai
import pytest
import pytest_asyncio
from openai.types.audio import (
    Transcription,
    TranscriptionTextDeltaEvent,
    TranscriptionTextDoneEvent,
    TranscriptionVerbose,
    TranslationVerbose,
)
from PIL import Image

from tests.fakes.scripted_model import Fail, Listen, Say, ScriptedModel
from tests.fakes.sound_files import HELLO, float_wav, heard, sound_file
from tests.fakes.triton import FakeTriton
from tests.wire.gateway_server import RunningGateway, run_gateway
from tests.wire.openai.conformance import check_response
from tests.wire.openai.text_requests import check_error, events

pytestmark = pytest.mark.asyncio(loop_scope="session")

PATH, TRANSLATIONS = "/v1/audio/transcriptions", "/v1/audio/translations"
MODELS = [
    ScriptedModel("ear", (Listen(),), is_transcription_model=True, parameters={"max_seconds": "600"}),
    ScriptedModel("ear-slow", (Listen(pause=0.2),), is_transcription_model=True),
    ScriptedModel(
        "ear-english",
        (Listen(),),
        is_transcription_model=True,
        parameters={"languages": '["en"]', "tasks": '["transcribe"]'},
    ),
    ScriptedModel("ear-plain", (Say(" a"), Say(" b", "stop")), is_transcription_model=True),
    ScriptedModel(
        "ear-broken", (Fail("[invalid_value:vad] There is no such threshold."),), is_transcription_model=True
    ),
    ScriptedModel("hello"),
]
WAV = sound_file()
TEXT = "u12 u20"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def triton() -> AsyncIterator[FakeTriton]:
    fake = await FakeTriton(MODELS).start()
    yield fake
    await fake.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def gateway(triton: FakeTriton, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningGateway]:
    settings: dict[str, Any] = {
        "recording_max_seconds": 3600,
        "recording_max_bytes": 16_000_000,
        "max_body_bytes": 1_000_000,
        "media_allow_private": True,
        "state": tmp_path_factory.mktemp("state"),
        "model_aliases": {"whisper-1": "ear"},
    }
    async with run_gateway(triton.url, **settings) as running:
        running.http.timeout = httpx.Timeout(120)
        yield running


async def post(
    gateway: RunningGateway, fields: dict[str, Any], file: bytes = WAV, *, name: str = "a.wav", path: str = PATH
) -> httpx.Response:
    response = await gateway.http.post(path, data={"model": "ear", **fields}, files={"file": (name, file)})
    if response.headers["content-type"] == "application/json":
        check_response(path, response.status_code, "application/json", response.content)
    return response


async def test_every_format(gateway: RunningGateway) -> None:
    found: dict[str, httpx.Response] = {}
    for output_format in ("json", "text", "srt", "vtt", "verbose_json"):
        response = await post(gateway, {"response_format": output_format})
        assert response.status_code == 200, response.text
        found[output_format] = response
    details = {"audio_tokens": 152, "text_tokens": 8}
    usage = {"type": "tokens", "input_tokens": 160, "output_tokens": 9, "total_tokens": 169}
    usage["input_token_details"] = details
    assert found["json"].json() == {"text": TEXT, "usage": usage, "code": 0, "message": "success"}
    assert (found["text"].text, found["text"].headers["content-type"]) == (f"{TEXT}\n", "text/plain; charset=utf-8")
    assert found["srt"].text.startswith("1\n00:00:00,500 --> 00:00:01,700\nu12\n\n2\n00:00:02,500 --> 00:00:04,500\n")
    assert found["vtt"].text.startswith("WEBVTT\n\n00:00:00.500 --> 00:00:01.700\nu12\n\n")
    assert found["vtt"].headers["content-type"] == "text/vtt; charset=utf-8"
    verbose = found["verbose_json"].json()
    assert (verbose["duration"], verbose["language"], len(verbose["segments"])) == (5.0, "english", 2)
    assert verbose["usage"] == {"type": "duration", "seconds": 5.0}


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # the package says so of translations
async def test_the_official_client(gateway: RunningGateway, triton: FakeTriton) -> None:
    client = gateway.client()
    create: Any = client.audio.transcriptions.create
    file = ("a.wav", WAV)
    plain = await create(file=file, model="whisper-1", include=["logprobs"], temperature=0.5)
    assert isinstance(plain, Transcription) and plain.text == TEXT and len(plain.logprobs or ()) == 2
    assert triton.calls[-1].tensors["temperature"] == [0.5]
    verbose = await create(
        file=file,
        model="ear",
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
        language="German",
        prompt="Names:",
        keywords=["Tritonic", "Triton"],
        languages=["de", "en"],
        chunking_strategy={"type": "server_vad", "threshold": 0.25, "silence_duration_ms": 200},
    )
    assert isinstance(verbose, TranscriptionVerbose) and verbose.language == "german"
    assert TranscriptionVerbose.model_validate(verbose.model_dump(), strict=True)
    assert [(word.word, word.start, word.end) for word in verbose.words or ()] == [
        ("u12", 0.5, 1.7),
        ("u20", 2.5, 4.5),
    ]
    sent = triton.calls[-1].tensors
    assert (sent["language"], sent["timestamps"], sent["task"]) == ([b"de"], [b"word"], [b"transcribe"])
    assert sent["prompt"] == [b"Names: Tritonic, Triton"]
    assert json.loads(sent["vad"][0]) == {"threshold": 0.25, "silence_duration_ms": 200}
    words = await create(
        file=file, model="ear", response_format="verbose_json", timestamp_granularities=["word"], temperature=0
    )
    assert words.segments is None and len(words.words) == 2 and "temperature" not in triton.calls[-1].tensors
    assert await create(file=file, model="ear", response_format="text") == f"{TEXT}\n"
    assert (await create(file=file, model="ear", response_format="srt")).startswith("1\n")
    stream = await create(file=file, model="ear", stream=True, chunking_strategy="auto", include=["logprobs"])
    *deltas, done = [event async for event in stream]
    assert triton.calls[-1].tensors["vad"] == [b"{}"]
    assert all(isinstance(event, TranscriptionTextDeltaEvent) and event.logprobs for event in deltas)
    assert isinstance(done, TranscriptionTextDoneEvent) and done.usage is not None and done.usage.total_tokens == 169
    assert "".join(event.delta for event in deltas) == done.text == TEXT
    translate: Any = client.audio.translations.create
    assert (await translate(file=file, model="ear")).text == "t12 t20"
    assert triton.calls[-1].tensors["task"] == [b"translate"]
    translated = await translate(file=file, model="ear", response_format="verbose_json")
    assert isinstance(translated, TranslationVerbose) and translated.language == "english"
    async with client.audio.transcriptions.with_streaming_response.create(file=file, model="ear") as raw:
        assert json.loads(await raw.read())["text"] == TEXT
    with pytest.raises(openai.BadRequestError) as failure:
        await create(file=file, model="ear", language="xx")
    assert failure.value.param == "language"


async def test_answers_are_of_the_official_types(gateway: RunningGateway) -> None:
    fields = {"include[]": "logprobs", "languages[]": ["de", "en"]}
    for silence in (False, True):
        data = sound_file(parts=((0, 3.0),)) if silence else WAV
        whole = Transcription.model_validate_json((await post(gateway, fields, data)).content, strict=True)
        # An empty list says that no language was found.
        assert [found.code for found in whole.languages or ()] == ([] if silence else ["en"])
        assert whole.languages is not None and len(whole.logprobs or ()) == (0 if silence else 2)
        *deltas, done, end = events(await post(gateway, {**fields, "stream": "true"}, data))
        assert end == "[DONE]" and len(deltas) == (0 if silence else 2)
        for delta in deltas:
            TranscriptionTextDeltaEvent.model_validate(delta, strict=True)
        last = TranscriptionTextDoneEvent.model_validate(done, strict=True)
        details = last.usage and last.usage.input_token_details
        assert details and (details.audio_tokens, details.text_tokens) == ((0, 0) if silence else (152, 8))


async def test_a_stream_has_named_events(gateway: RunningGateway) -> None:
    response = await post(gateway, {"stream": "true", "languages[]": ["en", "de"]})
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    check_response(PATH, 200, response.headers["content-type"], response.content)
    blocks = response.text.split("\n\n")
    assert [block.split("\n")[0] for block in blocks[:3]] == [
        *["event: transcript.text.delta"] * 2,
        "event: transcript.text.done",
    ]
    assert json.loads(blocks[2].split("\ndata: ")[1])["languages"] == [{"code": "en"}]
    assert blocks[3:] == ["data: [DONE]", ""]


async def test_a_model_that_reports_a_text_alone(gateway: RunningGateway) -> None:
    assert (await post(gateway, {"model": "ear-plain"})).json()["usage"] == {"type": "duration", "seconds": 5.0}
    *_, done, end = events(await post(gateway, {"model": "ear-plain", "stream": "true"}))
    assert (done, end) == ({"type": "transcript.text.done", "text": "a b"}, "[DONE]")
    verbose = await post(gateway, {"model": "ear-plain", "response_format": "verbose_json"})
    assert [segment["text"] for segment in verbose.json()["segments"]] == [" a", " b"]


async def test_json_bodies(gateway: RunningGateway) -> None:
    encoded = base64.b64encode(WAV).decode()
    for reference in (f"data:audio/wav;base64,{encoded}", encoded):
        response = await gateway.http.post(PATH, json={"model": "ear", "file": reference})
        assert response.json()["text"] == TEXT, response.text
    body = gzip.compress(json.dumps({"file": encoded}).encode())
    # Without a model, the first by name that transcribes answers.
    response = await gateway.http.post(PATH, content=body, headers={"Content-Encoding": "gzip"})
    assert response.json()["text"] == TEXT
    for fields, param in (
        ({}, "file"),
        ({"file": encoded, "url": "https://example.com"}, "url"),
        ({"file": ["a", "b"]}, "file"),
        ({"file": "data:audio/wav,abc"}, "file"),
        ({"file": "%%%"}, "file"),
        ({"file": "ftp://example.com/a.wav"}, "file"),
        ({"url": "file:///etc/passwd"}, "url"),
        ({"url": "http://127.0.0.1:1/a.wav"}, "url"),
    ):
        check_error(await gateway.http.post(PATH, json={"model": "ear", **fields}), 400, param=param)


async def test_a_recording_by_url(gateway: RunningGateway) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        body = WAV if b"GET /a" in head else bytes(17_000_000)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        base = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        response = await gateway.http.post(PATH, json={"model": "ear", "url": f"{base}/a.wav"})
        assert response.json()["text"] == TEXT, response.text
        sentence = check_error(
            await gateway.http.post(PATH, json={"model": "ear", "url": f"{base}/large"}), 400, param="url"
        )
        assert "larger than the limit of 16000000 bytes" in sentence


async def test_forms_in_gzip_and_with_a_reference(gateway: RunningGateway) -> None:
    request = gateway.http.build_request("POST", PATH, data={"model": "ear"}, files={"file": ("a.wav", WAV)})
    body = gzip.compress(request.read())
    headers = {"Content-Type": request.headers["content-type"], "Content-Encoding": "gzip"}
    response = await gateway.http.post(PATH, content=body, headers=headers)
    assert response.json()["text"] == TEXT, response.text
    encoded = base64.b64encode(WAV).decode()
    files: Any = {"model": (None, "ear"), "file": (None, f"data:audio/wav;base64,{encoded}")}
    assert (await gateway.http.post(PATH, files=files)).json()["text"] == TEXT
    strategy = json.dumps({"type": "server_vad", "threshold": 0.5})
    assert (await post(gateway, {"chunking_strategy": strategy})).status_code == 200


CONTAINERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "flac": ("flac", "flac", {}),
    "m4a": ("ipod", "aac", {"rate": 44_100}),
    "mp3": ("mp3", "libmp3lame", {"rate": 44_100, "layout": "stereo"}),
    "mp2": ("mp2", "mp2", {"rate": 44_100, "layout": "stereo"}),
    "mp4 with a picture": ("mp4", "aac", {"rate": 48_000, "video": True}),
    "ogg": ("ogg", "flac", {}),
    "opus": ("ogg", "libopus", {"rate": 48_000}),
    "webm": ("webm", "libopus", {"rate": 48_000}),
    "mkv with a picture": ("matroska", "aac", {"rate": 48_000, "video": True}),
    "mov with a picture": ("mov", "pcm_s16le", {"video": True}),
    "avi": ("avi", "pcm_s16le", {}),
    "mpegts": ("mpegts", "aac", {"rate": 48_000}),
    "mpeg": ("mpeg", "mp2", {"rate": 44_100, "layout": "stereo"}),
    "aac": ("adts", "aac", {"rate": 44_100}),
    "aiff": ("aiff", "pcm_s16be", {}),
    "au": ("au", "pcm_s16be", {}),
    "caf": ("caf", "pcm_s16le", {}),
    "wma": ("asf", "wmav2", {"rate": 44_100, "layout": "stereo"}),
    "96 kHz, 7.1": ("wav", "pcm_s24le", {"rate": 96_000, "layout": "7.1"}),
    "8 kHz, mu-law": ("wav", "pcm_mulaw", {"rate": 8_000}),
    "50 tracks": ("matroska", "pcm_s16le", {"streams": 50, "parts": HELLO[:2]}),
}


@pytest.mark.parametrize("name", CONTAINERS)
async def test_containers(gateway: RunningGateway, name: str) -> None:
    container, codec, options = CONTAINERS[name]
    data = sound_file(container, codec, **options)
    response = await post(gateway, {"response_format": "verbose_json"}, data, name="wrong.txt")
    assert response.status_code == 200, response.text
    expected = heard(options.get("parts", HELLO))
    lengths = [int(word[1:]) for word in response.json()["text"].split()]
    assert len(lengths) == len(expected.split())
    # Lossy codecs smear the ends of a tone a little.
    assert all(abs(got - int(word[1:])) <= 1 for got, word in zip(lengths, expected.split(), strict=True))


def picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    return file.getvalue()


def archive() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as opened:
        opened.writestr("a.wav", WAV)
    return file.getvalue()


BAD_FILES: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (bytes, "is empty"),
    "no samples": (lambda: sound_file(parts=((0, 0),)), "is empty"),
    "a picture": (picture, "got a file of the type image/png"),
    "a text": (lambda: b"Hello", "got text"),
    "a playlist": (lambda: b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "got text"),
    "an archive": (archive, "got a file of the type application/zip"),
    "a video without sound": (
        lambda: sound_file("mp4", "aac", rate=48_000, streams=0, video=True),
        "has no audio track",
    ),
    "noise after a header": (lambda: b"RIFF\x10\0\0\0WAVEjunk" + b"\xff" * 100, "damaged"),
    "a truncated MP4": (lambda: sound_file("mp4", "aac", rate=48_000)[:-400], "damaged"),
    # A few kilobytes that are more than an hour.
    "too long": (
        lambda: sound_file("flac", "flac", ((0, 1000),), rate=8_000, repeat=4),
        "longer than the limit of 3600",
    ),
}


@pytest.mark.parametrize("name", BAD_FILES)
async def test_bad_files(gateway: RunningGateway, name: str) -> None:
    make, reason = BAD_FILES[name]
    sentence = check_error(await post(gateway, {}, make()), 400, code="invalid_value", param="file")
    assert reason in sentence


async def test_recordings_that_are_only_odd(gateway: RunningGateway) -> None:
    mp3 = sound_file("mp3", "libmp3lame", ((0, 0.5), (0.4, 1.2), (0, 0.5), (0.4, 3.0)), rate=44_100)
    truncated = await post(gateway, {}, mp3[: len(mp3) * 3 // 4])
    assert truncated.status_code == 200 and truncated.json()["text"].startswith("u12 u")
    silence = await post(gateway, {"response_format": "verbose_json"}, sound_file(parts=((0, 3.0),)))
    assert silence.status_code == 200, silence.text
    assert (silence.json()["text"], silence.json()["segments"], silence.json()["language"]) == ("", [], "")
    assert (await post(gateway, {"response_format": "srt"}, sound_file(parts=((0, 3.0),)))).text == ""
    empty = await post(gateway, {"stream": "true"}, sound_file(parts=((0, 3.0),)))
    assert [event["type"] for event in events(empty)[:-1]] == ["transcript.text.done"]
    tone = [0.4 * math.sin(i * 0.12) for i in range(16_000)]
    values = [*[0.0] * 8000, *tone, *[math.nan] * 8000, *[math.inf] * 160, *[0.0] * 8000]
    odd = await post(gateway, {}, float_wav(values))
    assert odd.status_code == 200 and odd.json()["text"] == "u10 u0", odd.text


async def test_a_recording_in_several_pieces(gateway: RunningGateway, triton: FakeTriton) -> None:
    parts = tuple(part for i in range(60) for part in ((0.4, 0.5 + i % 7), (0, 0.5 + i % 3)))
    before = len(triton.calls)
    data = sound_file("flac", "flac", parts)
    response = await post(gateway, {"response_format": "verbose_json", "timestamp_granularities[]": "word"}, data)
    assert response.json()["text"] == heard(parts)
    assert len(triton.calls) - before == 3
    at, starts = 0.0, []
    for amplitude, seconds in parts:
        starts += [at] if amplitude else []
        at += seconds
    found = [word["start"] for word in response.json()["words"]]
    assert all(abs(got - start) <= 0.02 for got, start in zip(found, starts, strict=True))
    assert response.json()["duration"] == pytest.approx(at, abs=0.01)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"language": "xx"}, "language"),
        ({"languages[]": ["en", "klingon"]}, "languages[1]"),
        ({"language": "en", "languages[]": ["de"]}, "language"),
        ({"timestamp_granularities[]": ["word"]}, "timestamp_granularities"),
        ({"timestamp_granularities[]": ["letter"], "response_format": "verbose_json"}, "timestamp_granularities[0]"),
        ({"response_format": "html"}, "response_format"),
        ({"response_format": "diarized_json"}, "response_format"),
        ({"response_format": "srt", "stream": "true"}, "response_format"),
        ({"include[]": ["logprobs"], "response_format": "text"}, "include"),
        ({"include[]": ["tokens"]}, "include[0]"),
        ({"temperature": "1.5"}, "temperature"),
        ({"temperature": "nan"}, "temperature"),
        ({"temperature": "warm"}, "temperature"),
        ({"stream": "perhaps"}, "stream"),
        ({"prompt": "x" * 16_385}, "prompt"),
        ({"keywords[]": ["x" * 150] * 60, "prompt": "x" * 10_000}, "keywords"),
        ({"keywords[]": ["x" * 201]}, "keywords[0]"),
        ({"chunking_strategy": "manual"}, "chunking_strategy"),
        ({"chunking_strategy[type]": "server_vad", "chunking_strategy[threshold]": "2"}, "chunking_strategy.threshold"),
        (
            {"chunking_strategy": '{"type": "server_vad", "prefix_padding_ms": 5001}'},
            "chunking_strategy.prefix_padding_ms",
        ),
        (
            {"chunking_strategy": '{"type": "server_vad", "silence_duration_ms": 10001}'},
            "chunking_strategy.silence_duration_ms",
        ),
        ({"known_speaker_names[]": ["a"]}, "known_speaker_names"),
        ({"known_speaker_references[]": ["data:audio/wav;base64,AA=="]}, "known_speaker_references"),
        ({"model": "hello"}, "model"),
        ({"model": "ear-english", "language": "de"}, "language"),
        ({"model": "ear-plain", "response_format": "srt", "prompt": "x"}, "prompt"),
        ({"model": "ear-broken"}, "chunking_strategy"),
    ],
    ids=str,
)
async def test_bad_fields(gateway: RunningGateway, fields: dict[str, Any], param: str) -> None:
    check_error(await post(gateway, fields), 400, param=param)


async def test_a_body_that_is_too_large(gateway: RunningGateway) -> None:
    # The limit of the other fields adds to that of the file.
    data = bytes(17_000_000)
    check_error(await post(gateway, {}, data), 413, code="request_too_large")


async def test_other_failures(gateway: RunningGateway) -> None:
    check_error(await post(gateway, {"model": "nothing"}), 404, param="model", code="model_not_found")
    check_error(await gateway.http.post(PATH, files={"model": (None, "ear")}), 400, param="file")
    check_error(await post(gateway, {"model": "ear-english"}, path=TRANSLATIONS), 400, param="model")
    files = [("file", ("a.wav", WAV)), ("file", ("b.wav", WAV))]
    check_error(await gateway.http.post(PATH, data={"model": "ear"}, files=files), 400, param="file")
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    check_error(await gateway.http.post(PATH, content=b"--b\r\nContent-Disp", headers=headers), 400)


async def test_a_disconnect_stops_the_model_and_the_decoder(gateway: RunningGateway, triton: FakeTriton) -> None:
    data = sound_file("flac", "flac", ((0.4, 4.0), (0, 1.0)), repeat=60)
    before = len(triton.calls)
    request = asyncio.create_task(post(gateway, {"model": "ear-slow"}, data))
    await triton.call("ear-slow", before)
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)
    await triton.cancelled_call("ear-slow", before)
    assert len([call for call in triton.calls[before:] if call.model == "ear-slow"]) == 1
    async with asyncio.timeout(10):
        while (await gateway.metrics()).get(f'tritonic_in_flight{{model="ear-slow",route="{PATH}"}}', 0):
            await asyncio.sleep(0.05)


async def test_metrics_count_the_sound(gateway: RunningGateway) -> None:
    name = f'tritonic_audio_seconds_in_total{{model="ear",route="{PATH}"}}'
    before = (await gateway.metrics()).get(name, 0.0)
    await post(gateway, {})
    assert (await gateway.metrics())[name] == pytest.approx(before + 5.0)
