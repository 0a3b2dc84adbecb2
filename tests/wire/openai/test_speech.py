"""POST /v1/audio/speech and GET /v1/audio/voices."""

import asyncio
import base64
import json
import struct
import uuid
from typing import Any

import httpx
import pytest

from tests.fakes.scripted_model import ScriptedModel, SpeakSentences
from tests.fakes.speech_model import FRAMES_PER_SECOND, SECONDS_PER_CHARACTER, sentences
from tests.fakes.triton import FakeTriton
from tests.wire.dialects import OPENAI, PLATFORM, WireDialect
from tests.wire.gateway_server import RunningGateway, run_gateway
from tests.wire.openai.speech_requests import TEXT, decode, speak
from tests.wire.openai.text_requests import check_error, check_error_body, events

pytestmark = pytest.mark.asyncio(loop_scope="session")

CONTENT_TYPES = {
    "mp3": "audio/mpeg",
    "opus": "audio/opus",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}
SPOKEN = "".join(sentences(TEXT))
SECONDS = len(SPOKEN) * SECONDS_PER_CHARACTER
for_each_prefix = pytest.mark.parametrize("dialect", [OPENAI, PLATFORM], ids=str)


async def calls_of(triton: FakeTriton, gateway: RunningGateway, **fields: Any) -> dict[str, list[Any]]:
    """Send a request that must succeed, and return the tensors that the model got."""
    request_id = uuid.uuid4().hex
    body = {"model": "hibari", "input": "Hello.", "response_format": "pcm", **fields}
    response = await gateway.http.post("/v1/audio/speech", json=body, headers={"x-request-id": request_id})
    assert response.status_code == 200, response.text
    (call,) = [call for call in triton.calls if call.id.startswith(request_id)]
    return call.tensors


@pytest.mark.parametrize("model", ["hibari", "low-speaker"])
@pytest.mark.parametrize("speech_format", CONTENT_TYPES)
async def test_every_format_holds_the_whole_speech(gateway: RunningGateway, speech_format: str, model: str) -> None:
    response = await speak(gateway, model, response_format=speech_format)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == CONTENT_TYPES[speech_format]
    assert "content-length" not in response.headers
    seconds, rate = decode(response.content, speech_format)
    # Codecs add a part of a frame at both ends.
    assert 0 <= seconds - SECONDS + 0.001 < 0.15
    if speech_format == "pcm":
        assert rate == 24_000
    elif speech_format != "opus":
        assert rate == (24_000 if model == "hibari" else 16_000)


async def test_mp3_is_the_default(gateway: RunningGateway) -> None:
    response = await speak(gateway)
    assert response.headers["content-type"] == "audio/mpeg"
    assert decode(response.content, "mp3")[1] == 24_000


async def test_the_header_of_a_streamed_wav_has_no_length(gateway: RunningGateway) -> None:
    data = (await speak(gateway, response_format="wav")).content
    assert (data[:4], data[8:16], data[36:40]) == (b"RIFF", b"WAVEfmt ", b"data")
    assert struct.unpack_from("<I", data, 4) == struct.unpack_from("<I", data, 40) == (0xFFFFFFFF,)
    assert struct.unpack_from("<HHIIHH", data, 20) == (1, 1, 24_000, 48_000, 2, 16)


@pytest.mark.parametrize("speech_format", CONTENT_TYPES)
async def test_the_first_bytes_leave_before_the_second_sentence_is_spoken(
    gateway: RunningGateway, triton: FakeTriton, speech_format: str
) -> None:
    before = len(triton.calls)
    body = {"model": "breathless", "input": TEXT, "response_format": speech_format}
    async with gateway.http.stream("POST", "/v1/audio/speech", json=body) as response:
        reader = response.aiter_raw()
        assert await anext(reader)
        (call,) = [call for call in triton.calls[before:] if call.model == "breathless"]
        assert not call.ended.is_set()
    await triton.cancelled_call("breathless", before, seconds=5)


async def test_events_carry_the_same_bytes(gateway: RunningGateway) -> None:
    whole = await speak(gateway, response_format="pcm")
    response = await speak(gateway, response_format="pcm", stream_format="sse")
    *deltas, done, end = events(response)
    assert end == "[DONE]"
    assert {delta["type"] for delta in deltas} == {"speech.audio.delta"} and len(deltas) == 3
    assert b"".join(base64.b64decode(delta["audio"]) for delta in deltas) == whole.content
    frames = sum(int(len(one) * SECONDS_PER_CHARACTER * FRAMES_PER_SECOND) for one in sentences(TEXT))
    usage = {"input_tokens": len(SPOKEN), "output_tokens": frames, "total_tokens": len(SPOKEN) + frames}
    assert done == {"type": "speech.audio.done", "usage": usage}
    assert b"event: speech.audio.delta\ndata: " in response.content


@pytest.mark.parametrize("speech_format", ["mp3", "pcm"])
async def test_a_late_failure_closes_the_connection(gateway: RunningGateway, speech_format: str) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        await speak(gateway, "hoarse", response_format=speech_format)


async def test_events_have_a_bounded_size(gateway: RunningGateway) -> None:
    whole = await speak(gateway, input="word " * 80, response_format="pcm")
    response = await speak(gateway, input="word " * 80, response_format="pcm", stream_format="sse")
    parts = [base64.b64decode(event["audio"]) for event in events(response)[:-2]]
    assert b"".join(parts) == whole.content and max(map(len, parts)) == 96_000 < len(whole.content)


async def test_proxies_do_not_buffer(gateway: RunningGateway) -> None:
    response = await speak(gateway, response_format="pcm")
    assert (response.headers["x-accel-buffering"], response.headers["cache-control"]) == ("no", "no-cache")


@pytest.mark.parametrize("field", ["input", "voice", "language", "instructions"])
async def test_half_a_surrogate_pair_is_refused(gateway: RunningGateway, field: str) -> None:
    body = json.dumps({"model": "actor", "input": "Hello.", field: "\ud83d"})
    response = await gateway.http.post("/v1/audio/speech", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400, response.text


async def test_a_slow_reader_slows_the_model_down() -> None:
    flood = ScriptedModel("flood", (SpeakSentences(),), is_speech_model=True)
    talking = await FakeTriton([flood]).start()
    try:
        async with run_gateway(talking.url, speech_max_characters=100_000) as gateway:
            # 2,000 seconds of speech: 96 MB.
            body = {"model": "flood", "input": ("w" * 99 + ". ") * 990, "response_format": "wav"}
            async with gateway.http.stream("POST", "/v1/audio/speech", json=body) as response:
                reader = response.aiter_raw()
                await anext(reader)
                (call,) = talking.calls
                await asyncio.sleep(0.5)
                assert not call.ended.is_set()  # most of it is not made yet
            await talking.cancelled_call("flood", seconds=5)
    finally:
        await talking.stop()


async def test_a_late_failure_of_events_is_an_event(gateway: RunningGateway) -> None:
    delta, failure = events(await speak(gateway, "hoarse", response_format="pcm", stream_format="sse"))
    assert delta["type"] == "speech.audio.delta"
    check_error_body(failure, "server_error", "model_failed")


@pytest.mark.parametrize("speech_format", ["mp3", "wav"])
async def test_a_hang_up_stops_the_model(gateway: RunningGateway, triton: FakeTriton, speech_format: str) -> None:
    before = len(triton.calls)
    body = {"model": "slow-speaker", "input": "One. " * 50, "response_format": speech_format}
    async with gateway.http.stream("POST", "/v1/audio/speech", json=body) as response:
        async for _ in response.aiter_raw():
            break
    await triton.cancelled_call("slow-speaker", before, seconds=5)


async def test_options_reach_the_model(gateway: RunningGateway, triton: FakeTriton) -> None:
    tensors = await calls_of(triton, gateway, speed=2.5, language="en-GB", voice="bella")
    assert tensors == {"text": [b"Hello."], "voice": [b"bella"], "language": [b"en-GB"], "speed": [2.5]}
    assert await calls_of(triton, gateway, speed=1) == {"text": [b"Hello."], "voice": [b"heart"]}
    acted = await calls_of(triton, gateway, model="actor", instructions="Whisper.")
    assert acted["instructions"] == [b"Whisper."]
    # A model that declares no voices has its own; OpenAI's clients require a name.
    assert await calls_of(triton, gateway, model="mute", instructions="", voice="alloy") == {"text": [b"Hello."]}


@pytest.mark.parametrize(
    ("asked", "spoken"),
    [
        ("heart", "heart"),
        ({"id": "adam"}, "adam"),
        ("Bella", "bella"),
        ("HEART", "heart"),
        ("alloy", "heart"),
        ("coral", "bella"),
        ("marin", "heart"),
        ("onyx", "adam"),
        ("verse", "adam"),
        ({"id": "nova"}, "bella"),
        (None, "heart"),
    ],
    ids=str,
)
async def test_names_of_voices(gateway: RunningGateway, triton: FakeTriton, asked: Any, spoken: str) -> None:
    tensors = await calls_of(triton, gateway, voice=asked)
    assert tensors["voice"] == [spoken.encode()]


@for_each_prefix
async def test_the_voices_are_listed(gateway: RunningGateway, dialect: WireDialect) -> None:
    answer = (await gateway.http.get(f"{dialect.prefix}/audio/voices")).json()
    voices = {voice["id"]: voice for voice in answer["data"] if voice["model"] == "hibari"}
    assert answer["object"] == "list" and list(voices) == ["heart", "bella", "adam", "alpha"]
    assert voices["heart"] == {
        "id": "heart",
        "object": "voice",
        "name": "Heart",
        "language": "en-US",
        "gender": "female",
        "model": "hibari",
        "default": True,
        "aliases": ["alloy", "marin", "sage"],
    }
    assert voices["adam"]["aliases"] == ["ash", "ballad", "cedar", "echo", "fable", "onyx", "verse"]
    assert voices["alpha"]["aliases"] == []


async def test_a_platform_speaks_with_its_own_models(triton: FakeTriton) -> None:
    platforms = {"here": {"keys": ["sk-here"], "models": ["low-speaker"]}}
    async with run_gateway(triton.url, api_keys=["sk-x"], platforms=platforms) as gateway:
        mine = {"authorization": "Bearer sk-here"}
        body = {"model": "low-speaker", "input": TEXT, "response_format": "wav"}
        answer = await gateway.http.post("/here/v1/audio/speech", json=body, headers=mine)
        assert answer.status_code == 200 and decode(answer.content, "wav")[1] == 16_000
        voices = (await gateway.http.get("/here/v1/audio/voices", headers=mine)).json()["data"]
        assert {voice["model"] for voice in voices} == {"low-speaker"}
        other = await gateway.http.post("/here/v1/audio/speech", json={**body, "model": "hibari"}, headers=mine)
        assert "Models: low-speaker." in check_error(other, 404, param="model")
        for path in ("/here/v1/audio/speech", "/v1/audio/speech"):
            refused = await gateway.http.post(path, json=body, headers={"authorization": "Bearer sk-other"})
            check_error(refused, 401, "authentication_error")
        assert (await gateway.http.get("/nowhere/v1/audio/voices")).status_code == 404


INVALID: list[tuple[dict[str, Any], str, str]] = [
    ({"input": ""}, "input", "blank"),
    ({"input": " \n\t"}, "input", "blank"),
    ({"input": None}, "input", "string"),
    ({"input": ["a"]}, "input", "string"),
    ({"input": "a" * 4097}, "input", "4096"),
    ({"input": "🎉🎉"}, "input", "nothing to say"),
    ({"input": "你好"}, "input", "Chinese characters"),
    ({"voice": "nobody"}, "voice", "heart, bella, adam, alpha"),
    ({"voice": {"id": "nobody"}}, "voice", "heart, bella, adam, alpha"),
    ({"voice": {}}, "voice.id", "required"),
    ({"voice": 7}, "voice", ""),
    ({"voice": ""}, "voice", ""),
    ({"speed": 0.2}, "speed", "0.25"),
    ({"speed": 4.5}, "speed", "4"),
    ({"speed": "fast"}, "speed", ""),
    ({"response_format": "mp4"}, "response_format", "mp3"),
    ({"stream_format": "websocket"}, "stream_format", "sse"),
    ({"language": "English!"}, "language", ""),
    ({"instructions": "Whisper."}, "instructions", "does not follow"),
    ({"model": "mute", "voice": "heart"}, "voice", "no choice of voices"),
    ({"language": ""}, "language", ""),
    ({"model": "mute", "speed": 2}, "speed", "does not support"),
    ({"model": "mute", "language": "en"}, "language", "does not support"),
    ({"model": "mute", "input": "a" * 101}, "input", "up to 100"),
    ({"model": "hello"}, "model", "cannot speak"),
]


@pytest.mark.parametrize(("fields", "param", "words"), INVALID, ids=lambda value: str(value)[:40])
async def test_invalid_requests(gateway: RunningGateway, fields: dict[str, Any], param: str, words: str) -> None:
    message = check_error(await speak(gateway, fields.pop("model", "hibari"), **fields), 400, param=param)
    assert words in message


async def test_the_limit_of_a_text_is_a_setting(triton: FakeTriton) -> None:
    async with run_gateway(triton.url, speech_max_characters=5000) as gateway:
        long = "word. " * 830
        assert (await speak(gateway, input=long, response_format="pcm")).status_code == 200
        check_error(await speak(gateway, input="a" * 5001), 400, param="input")


@pytest.mark.parametrize("text", ["1" * 3000, "<speak>Hi <break time='1s'/></speak>", "שלום", "a\u202eb\x00c", "É" * 9])
async def test_strange_texts_are_spoken(gateway: RunningGateway, text: str) -> None:
    response = await speak(gateway, input=text, response_format="opus")
    assert response.status_code == 200 and decode(response.content, "opus")[0] > 0


async def test_formats_without_the_extra(gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for speech_format in ("mp3", "opus", "aac", "flac"):
        message = check_error(
            await speak(gateway, response_format=speech_format),
            400,
            code="unsupported_parameter",
            param="response_format",
        )
        assert "extra 'audio'" in message
    for speech_format in ("wav", "pcm"):
        assert (await speak(gateway, response_format=speech_format)).status_code == 200
    assert "resampling" in check_error(
        await speak(gateway, "low-speaker", response_format="pcm"), 400, param="response_format"
    )


async def test_many_answers_are_encoded_at_once(triton: FakeTriton) -> None:
    async with run_gateway(triton.url, speech_encoders=4) as gateway:
        answers = await asyncio.gather(*(speak(gateway, response_format="mp3") for _ in range(12)))
        assert {answer.status_code for answer in answers} == {200}
        assert all(len(answer.content) == len(answers[0].content) for answer in answers)


async def test_metrics_count_the_tokens(gateway: RunningGateway) -> None:
    labels = '{model="hibari",route="/v1/audio/speech"}'
    before = await gateway.metrics()
    await speak(gateway, response_format="pcm")
    after = await gateway.metrics()
    read = f"tritonic_tokens_in_total{labels}"
    assert after[read] - before.get(read, 0) == len(SPOKEN)
    generated = f"tritonic_tokens_out_total{labels}"
    assert after[generated] - before.get(generated, 0) > 60
    first = f"tritonic_time_to_first_token_seconds_count{labels}"
    assert after[first] - before.get(first, 0) == 1
    assert after.get(f"tritonic_inter_token_seconds_count{labels}", 0) == 0


async def test_the_official_client_streams_a_file(gateway: RunningGateway, tmp_path: Any) -> None:
    client = gateway.client()
    async with client.audio.speech.with_streaming_response.create(
        model="hibari", voice="alloy", input=TEXT, response_format="flac"
    ) as response:
        await response.stream_to_file(tmp_path / "speech.flac")
    assert abs(decode((tmp_path / "speech.flac").read_bytes(), "flac")[0] - SECONDS) < 0.1
    whole = await client.audio.speech.create(model="hibari", voice={"id": "adam"}, input=TEXT, speed=2)
    assert abs(decode(whole.content, "mp3")[0] - SECONDS / 2) < 0.15
    async with client.audio.speech.with_streaming_response.create(
        model="hibari", voice="alloy", input=TEXT, response_format="pcm", stream_format="sse"
    ) as response:
        lines = [line async for line in response.iter_lines() if line.startswith("data: {")]
    kinds = [json.loads(line.removeprefix("data: "))["type"] for line in lines]
    assert kinds == ["speech.audio.delta"] * 3 + ["speech.audio.done"]
