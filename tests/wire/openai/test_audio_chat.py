"""Chats with spoken answers: a chat model writes, and a speech model speaks."""

import base64
import json
import time
from typing import Any

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.fakes.scripted_model import Fail, Pause, Say, ScriptedModel
from tests.fakes.speech_model import SECONDS_PER_CHARACTER
from tests.fakes.triton import FakeTriton
from tests.wire.dialects import OPENAI, PLATFORM, WireDialect
from tests.wire.gateway_server import RunningGateway, run_gateway
from tests.wire.openai.conformance import check_response
from tests.wire.openai.speech_requests import decode
from tests.wire.openai.text_requests import chat, check_error, check_error_body, events
from tests.wire.platform.conformance import check_response as check_platform_response
from tests.wire.scripted_models import SCRIPTED_MODELS

pytestmark = pytest.mark.asyncio(loop_scope="session")
for_each_dialect = pytest.mark.parametrize("dialect", [OPENAI, PLATFORM], ids=str)

SPOKEN: dict[str, Any] = {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}}
STREAMED: dict[str, Any] = {**SPOKEN, "audio": {"voice": "adam", "format": "pcm16"}, "stream": True}
ANSWER = "\n\nHello there, how may I assist you today?"
SECONDS = len(ANSWER.strip()) * SECONDS_PER_CHARACTER


async def ask(gateway: RunningGateway, dialect: WireDialect = OPENAI, model: str = "hello", **fields: Any) -> Any:
    body = {"model": model, "messages": [{"role": "user", "content": "Hello!"}], **fields}
    response = await gateway.http.post(f"{dialect.prefix}/chat/completions", json=body)
    path = "/v1/chat/completions" if dialect is OPENAI else "/{platform}/v1/chat/completions"
    check = check_response if dialect is OPENAI else check_platform_response
    check(path, response.status_code, response.headers["content-type"], response.content)
    return response


@for_each_dialect
@pytest.mark.parametrize("audio_format", ["wav", "mp3", "flac", "opus", "aac", "pcm16"])
async def test_a_whole_answer(gateway: RunningGateway, dialect: WireDialect, audio_format: str) -> None:
    response = await ask(gateway, dialect, **{**SPOKEN, "audio": {"voice": "alloy", "format": audio_format}})
    choice = response.json()["choices"][0]
    message, audio = choice["message"], choice["message"]["audio"]
    assert (message["content"], choice["finish_reason"]) == (None, "stop")
    assert audio["transcript"] == ANSWER and audio["id"].startswith("audio_")
    assert audio["expires_at"] > time.time() + 3600
    data = base64.b64decode(audio["data"])
    seconds, _ = decode(data, "pcm" if audio_format == "pcm16" else audio_format)
    assert abs(seconds - SECONDS) < 0.15
    if audio_format == "wav":
        assert int.from_bytes(data[4:8], "little") == len(data) - 8
    if dialect is OPENAI:
        ChatCompletion.model_validate_json(response.content, strict=True)


@for_each_dialect
async def test_a_streamed_answer(gateway: RunningGateway, dialect: WireDialect) -> None:
    response = await ask(gateway, dialect, **STREAMED, stream_options={"include_usage": True})
    *chunks, usage, end = events(response)
    assert end == "[DONE]" and usage["usage"]["total_tokens"] == 18
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0]["role"] == "assistant" and "audio" not in deltas[0]
    audios = [delta["audio"] for delta in deltas if "audio" in delta]
    assert "".join(audio.get("transcript", "") for audio in audios) == ANSWER
    assert [audio["id"][:6] for audio in audios if "id" in audio] == ["audio_"] and "id" in audios[0]
    # The parts can be joined before they are decoded.
    data = base64.b64decode("".join(audio.get("data", "") for audio in audios))
    assert abs(decode(data, "pcm")[0] - SECONDS) < 0.01
    assert list(audios[-1]) == ["expires_at"]
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert reasons[-1] == "stop" and set(reasons[:-1]) == {None}
    if dialect is OPENAI:
        for chunk in chunks:
            ChatCompletionChunk.model_validate(chunk, strict=True)


async def test_sentences_are_spoken_while_the_chat_model_writes() -> None:
    beginning = (Say("It begins here. "), Say("Then"))
    triton = await FakeTriton(
        [
            *SCRIPTED_MODELS,
            ScriptedModel("teller", (*beginning, Say(" it goes on."), Say("", "stop"))),
            ScriptedModel("ponderer", (*beginning, Pause())),
        ]
    ).start()
    try:
        async with run_gateway(triton.url) as gateway:
            # The second sentence is never complete.
            body = {"model": "ponderer", "messages": [{"role": "user", "content": "Go on."}], **STREAMED}
            async with gateway.http.stream("POST", "/v1/chat/completions", json=body) as response:
                lines = response.aiter_lines()
                while '"data":"' not in await anext(lines):
                    pass
            await triton.cancelled_call("ponderer", seconds=5)
            before = len(triton.calls)
            await ask(gateway, model="teller", **STREAMED)
            spoken = [call.tensors for call in triton.calls[before:] if call.model == "actor"]
            assert [tensors["text"] for tensors in spoken] == [[b"It begins here."], [b"Then it goes on."]]
            assert {tensors["voice"][0] for tensors in spoken} == {b"adam"}
    finally:
        await triton.stop()


@for_each_dialect
async def test_the_official_client_accumulates_a_stream(gateway: RunningGateway, dialect: WireDialect) -> None:
    client = gateway.client(base_url=f"{gateway.url}{dialect.prefix}")
    stream = await client.chat.completions.create(
        model="hello",
        messages=[{"role": "user", "content": "Hello!"}],
        modalities=["text", "audio"],
        audio={"voice": "alloy", "format": "pcm16"},
        stream=True,
    )
    transcript, data = "", ""
    async for chunk in stream:
        audio = chunk.choices[0].delta.audio if chunk.choices else None
        if audio:
            transcript, data = transcript + (audio.transcript or ""), data + (audio.data or "")
    assert transcript == ANSWER and abs(decode(base64.b64decode(data), "pcm")[0] - SECONDS) < 0.01


async def test_a_later_message_refers_to_an_answer_by_its_id(gateway: RunningGateway, triton: FakeTriton) -> None:
    first = (await ask(gateway, **SPOKEN)).json()["choices"][0]["message"]
    history = [
        {"role": "user", "content": "Hello!"},
        {"role": "assistant", "audio": {"id": first["audio"]["id"]}},
        {"role": "user", "content": "Go on."},
    ]
    for fields in ({}, SPOKEN):
        assert (await ask(gateway, **{**fields, "messages": history})).status_code == 200
        (call,) = [call for call in triton.calls if call.model == "hello"][-1:]
        assert f"<|im_start|>assistant\n{ANSWER}<|im_end|>" in call.prompt
    # LangChain and the official client send the whole message back.
    history[1] = {"role": "assistant", "content": "", "audio": first["audio"], "refusal": None}
    assert (await ask(gateway, messages=history)).status_code == 200


async def test_an_answer_belongs_to_its_caller(triton: FakeTriton) -> None:
    async with run_gateway(triton.url, api_keys=["sk-a", "sk-b"]) as gateway:
        body = {"model": "hello", "messages": [{"role": "user", "content": "Hello!"}]}
        path = "/v1/chat/completions"
        mine = {"authorization": "Bearer sk-a"}
        answer = (await gateway.http.post(path, json={**body, **SPOKEN}, headers=mine)).json()
        audio_id = answer["choices"][0]["message"]["audio"]["id"]
        later = {**body, "messages": [{"role": "assistant", "audio": {"id": audio_id}}, *body["messages"]]}
        assert (await gateway.http.post(path, json=later, headers=mine)).status_code == 200
        other = await gateway.http.post(path, json=later, headers={"authorization": "Bearer sk-b"})
        assert "expired" in check_error(other, 400, param="messages[0].audio.id")


@pytest.mark.parametrize("audio_id", ["audio_" + "0" * 32, "x", "../files.key", ""])
async def test_unknown_answers_are_refused(gateway: RunningGateway, audio_id: str) -> None:
    history = [{"role": "assistant", "audio": {"id": audio_id}}, {"role": "user", "content": "Go on."}]
    check_error(await ask(gateway, messages=history), 400, param="messages[0].audio.id")


async def test_answers_without_text_have_no_audio(gateway: RunningGateway) -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    forced = (await ask(gateway, model="forced", tools=tools, tool_choice="required", **SPOKEN)).json()
    message = forced["choices"][0]["message"]
    assert message["tool_calls"] and "audio" not in message
    streamed = events(await ask(gateway, model="forced", tools=tools, tool_choice="required", **STREAMED))
    assert not any("audio" in chunk["choices"][0]["delta"] for chunk in streamed[:-1])
    wordless = (await ask(gateway, model="wordless", **SPOKEN)).json()["choices"][0]["message"]
    assert wordless["content"] == "" and "audio" not in wordless


async def test_reasoning_is_not_spoken(gateway: RunningGateway, triton: FakeTriton) -> None:
    message = (await ask(gateway, model="thinker", **SPOKEN)).json()["choices"][0]["message"]
    assert (message["reasoning_content"], message["audio"]["transcript"]) == ("Hm.", "Yes")
    assert [call for call in triton.calls if call.model == "actor"][-1].tensors["text"] == [b"Yes"]


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"audio": {"voice": "alloy", "format": "wav"}}, "audio"),
    ({"audio": {"voice": "alloy", "format": "wav"}, "modalities": ["text"]}, "audio"),
    ({"modalities": ["text", "audio"]}, "audio"),
    ({"modalities": ["text", "video"]}, "modalities[1]"),
    ({"modalities": "audio"}, "modalities"),
    ({**SPOKEN, "audio": {"format": "wav"}}, "audio.voice"),
    ({**SPOKEN, "audio": {"voice": "alloy"}}, "audio.format"),
    ({**SPOKEN, "audio": {"voice": "alloy", "format": "mp4"}}, "audio.format"),
    ({**SPOKEN, "audio": {"voice": "nobody", "format": "wav"}}, "audio.voice"),
    ({**SPOKEN, "audio": {"voice": "alloy", "format": "wav", "model": "hello"}}, "audio.model"),
    ({**SPOKEN, "audio": {"voice": "heart", "format": "wav", "model": "mute"}}, "audio.voice"),
    ({**SPOKEN, "stream": True}, "audio.format"),
    ({**SPOKEN, "n": 2}, "n"),
    ({**SPOKEN, "logprobs": True}, "logprobs"),
    ({**SPOKEN, "response_format": {"type": "json_object"}}, "response_format"),
    ({**SPOKEN, "guided_regex": "a+"}, "guided_regex"),
    ({**SPOKEN, "model": "shapes"}, "modalities"),
]


@for_each_dialect
@pytest.mark.parametrize(("fields", "param"), REFUSED, ids=lambda value: str(value)[:60])
async def test_refused_requests(
    gateway: RunningGateway, dialect: WireDialect, fields: dict[str, Any], param: str
) -> None:
    check_error(await ask(gateway, dialect, **fields), 400, param=param)


async def test_failures_of_either_model(gateway: RunningGateway) -> None:
    check_error(await ask(gateway, model="broken", **SPOKEN), 502, "server_error", "model_failed")
    check_error(await ask(gateway, model="broken-later", **SPOKEN), 502, "server_error", "model_failed")
    *_, failure = events(await ask(gateway, model="broken-later", **STREAMED))
    check_error_body(failure, "server_error", "model_failed")
    # A chat model that answers in a script that the voice does not speak.
    chinese = ScriptedModel("chinese", (Say("你好，世界。", "stop"),))  # noqa: RUF001
    mute = ScriptedModel("hibari", (Fail("[engine_failed] The engine stopped."),), is_speech_model=True)
    triton = await FakeTriton([chinese, *(model for model in SCRIPTED_MODELS if model.name != "hoarse")]).start()
    failing = await FakeTriton([mute, ScriptedModel("hello")]).start()
    try:
        async with run_gateway(triton.url) as second:
            message = check_error(await ask(second, model="chinese", **SPOKEN), 400, param="audio.voice")
            assert "cannot speak Chinese characters" in message
        async with run_gateway(failing.url) as third:
            check_error(await ask(third, **SPOKEN), 502, "server_error", "model_failed")
    finally:
        await triton.stop()
        await failing.stop()


async def test_audio_needs_a_speech_model() -> None:
    triton = await FakeTriton([ScriptedModel("hello")]).start()
    try:
        async with run_gateway(triton.url) as gateway:
            assert "No model speaks" in check_error(await ask(gateway, **SPOKEN), 400, param="modalities")
    finally:
        await triton.stop()


async def test_a_hang_up_stops_both_models(gateway: RunningGateway, triton: FakeTriton) -> None:
    before = len(triton.calls)
    audio = {"voice": "adam", "format": "pcm16", "model": "slow-speaker"}
    body = {"model": "endless", "messages": [{"role": "user", "content": "Go on."}], **STREAMED, "audio": audio}
    async with gateway.http.stream("POST", "/v1/chat/completions", json=body) as response:
        async for line in response.aiter_lines():
            if "transcript" in line:
                await triton.call("slow-speaker", before, seconds=20)
                break
    for model in ("endless", "slow-speaker"):
        await triton.cancelled_call(model, before, seconds=5)


async def test_the_metrics_name_the_chat_model(gateway: RunningGateway) -> None:
    route = "/v1/chat/completions"
    requests = f'tritonic_requests_total{{model="cut",route="{route}",status="200"}}'
    before = await gateway.metrics()
    await ask(gateway, model="cut", **SPOKEN)
    after = await gateway.metrics()
    assert after[requests] - before.get(requests, 0) == 1
    spoken = f'tritonic_tokens_in_total{{model="actor",route="{route}"}}'
    assert after[spoken] - before.get(spoken, 0) == len("as far as it goes")


async def test_text_only_modalities_change_nothing(gateway: RunningGateway) -> None:
    for modalities in (["text"], [], None):
        answer = await chat(gateway, modalities=modalities)
        assert answer.status_code == 200 and "audio" not in json.dumps(answer.json())
