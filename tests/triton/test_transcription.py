"""The transcription tensors of docs/architecture.md: Triton's client and the default model, without the gateway."""

import json
import queue
import re
import time
from collections.abc import Callable, Iterator
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc as client

from builders import recipe
from tests.triton.model_copies import build_default, install_copy
from tritonic.embedded import EmbeddedTriton

pytestmark = pytest.mark.triton

NAME = recipe.DEFAULT_TRANSCRIPTION_RECIPE
SMALL = "small"
"""A copy of the model with one row and a short queue, whose configuration is that of an earlier build."""
RATE = 16_000
TYPES = {
    "audio": ("FP32", np.float32),
    "temperature": ("FP32", np.float32),
    "more": ("BOOL", np.bool_),
    "return_logprobs": ("BOOL", np.bool_),
}
TEXT = (
    "it was the best of times it was the worst of times it was the age of wisdom it was the age of foolishness "
    "it was the epoch of belief it was the epoch of incredulity"
)

Responses = list[dict[str, Any]]


def tensor(name: str, value: Any) -> client.InferInput:
    if name in TYPES:
        kind, dtype = TYPES[name]
        array = np.asarray(value, dtype).reshape(-1)
    else:
        kind, array = "BYTES", np.array([str(value).encode()], np.object_)
    made = client.InferInput(name, array.shape, kind)
    made.set_data_from_numpy(array)
    return made


def plain(text: str) -> str:
    return " ".join(re.findall(r"[a-z']+", text.lower()))


def transcript(responses: Responses) -> str:
    return plain("".join(response.get("text", "") for response in responses))


@pytest.fixture(scope="module")
def recording() -> Any:
    """13.3 s of speech, float32 at 16 kHz."""
    import av

    with av.open(str(Path(__file__).parent / "recordings" / "two_cities.opus")) as file:
        resampler = av.AudioResampler("flt", "mono", RATE)
        frames = [part for frame in file.decode(audio=0) for part in resampler.resample(frame)]
        return np.concatenate([frame.to_ndarray()[0] for frame in [*frames, *resampler.resample(None)]])


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedTriton]:
    """A Triton of its own with the default transcription model."""
    folder = build_default(NAME)
    repository = tmp_path_factory.mktemp("transcription")
    install_copy(folder, repository, NAME)
    install_copy(folder, repository, SMALL, without=("num_audio_tokens",), max_rows=1, max_waiting=1, threads=1)
    with EmbeddedTriton(repository) as triton:
        yield triton


@pytest.fixture
def begin(running: EmbeddedTriton) -> Iterator[Callable[..., Callable[[], Responses]]]:
    """A function that sends a request, and returns a function that waits for its responses."""
    received: dict[str, queue.Queue[tuple[Any, Any]]] = {}
    failures: queue.Queue[Any] = queue.Queue()

    def take(result: Any, error: Any) -> None:
        # An error of a stream has no request's id: the tests that expect one have one open request.
        if error is not None:
            failures.put(error)
        else:
            received[result.get_response().id].put((result, error))

    with client.InferenceServerClient(running.grpc_url) as server:
        server.start_stream(take)

        def send(model: str = NAME, parameters: dict[str, Any] | None = None, **tensors: Any) -> Any:
            number = str(len(received))
            received[number] = queue.Queue()
            inputs = [tensor(name, value) for name, value in tensors.items()]
            server.async_stream_infer(
                model, inputs, request_id=number, parameters=parameters, enable_empty_final_response=True
            )

            def wait() -> Responses:
                responses: Responses = []
                deadline = time.monotonic() + 120
                while time.monotonic() < deadline:
                    if not failures.empty():
                        raise failures.get()
                    try:
                        result, _ = received[number].get(timeout=0.05)
                    except queue.Empty:
                        continue
                    outputs = {output.name: result.as_numpy(output.name) for output in result.get_response().outputs}
                    responses.append({name: value(name, array) for name, array in outputs.items()})
                    if result.get_response().parameters["triton_final_response"].bool_param:
                        return responses
                raise AssertionError("the request was not answered")

            return wait

        yield send


def value(name: str, array: Any) -> Any:
    if name == "token_ids":
        return array.tolist()
    return array[0].decode() if array.dtype == np.object_ else array[0].item()


@pytest.fixture
def transcribe(begin: Callable[..., Callable[[], Responses]]) -> Callable[..., Responses]:
    """A function that sends a request, and returns its responses."""
    return lambda *args, **tensors: begin(*args, **tensors)()


def metric(triton: EmbeddedTriton, name: str, model: str) -> float:
    lines = httpx.get(triton.metrics_url, trust_env=False).text.splitlines()
    (line,) = (line for line in lines if line.startswith(f'{name}{{model="{model}"}}'))
    return float(line.rsplit(" ", 1)[1])


def test_a_recording_becomes_text(transcribe: Callable[..., Responses], recording: Any) -> None:
    (response,) = transcribe(audio=recording)
    assert plain(response["text"]) == TEXT
    assert response["text"].startswith(" ")
    assert response["language"] == "en"
    assert 0 <= response["start"] < 1.2
    assert 12 < response["end"] <= len(recording) / RATE + 0.01
    assert response["consumed"] == pytest.approx(len(recording) / RATE)
    assert -0.5 < response["avg_logprob"] < 0
    assert response["no_speech_prob"] < 0.5
    assert response["temperature"] == 0
    assert 1 < response["compression_ratio"] < 2.4
    assert response["num_output_tokens"] == len(response["token_ids"]) + 1
    assert response["num_input_tokens"] == pytest.approx(50 * 12.5 + 3, abs=40)
    assert response["num_input_tokens"] - response["num_audio_tokens"] == 3
    assert "words" not in response
    assert "logprobs" not in response


def test_segments_and_words_have_times(transcribe: Callable[..., Responses], recording: Any) -> None:
    silence = np.zeros(3 * RATE, np.float32)
    responses = transcribe(audio=np.concatenate([silence, recording]), language="en", timestamps="word")
    assert len(responses) > 1
    assert transcript(responses) == TEXT
    words = [word for response in responses for word in json.loads(response["words"])]
    assert plain(" ".join(word["word"] for word in words)) == TEXT
    times = [time for word in words for time in (word["start"], word["end"])]
    assert times == sorted(times)
    assert 3.5 < times[0] < 4.5, "the silence before the speech counts"
    starts = {plain(word["word"]): word["start"] for word in words}
    assert starts["wisdom"] == pytest.approx(3 + 5.75, abs=0.2)
    for response in responses:
        inside = json.loads(response["words"])
        assert "".join(word["word"] for word in inside).strip() == response["text"].strip()
        assert response["start"] == pytest.approx(inside[0]["start"], abs=0.01)
        assert all(0 < word["probability"] <= 1 for word in inside)
    assert [response["consumed"] for response in responses if "consumed" in response] == pytest.approx(
        [3 + len(recording) / RATE]
    )


def test_log_probabilities_are_those_of_the_text(transcribe: Callable[..., Responses], recording: Any) -> None:
    (response,) = transcribe(audio=recording[: 6 * RATE], language="en", return_logprobs=True)
    entries = json.loads(response["logprobs"])
    assert b"".join(bytes(entry["bytes"]) for entry in entries).decode() == response["text"]
    assert all(entry["logprob"] <= 0 for entry in entries)


@pytest.mark.parametrize("kind", ["silence", "noise", "quiet noise", "sine", "music", "nothing"])
def test_nothing_is_invented(transcribe: Callable[..., Responses], kind: str) -> None:
    times = np.arange(20 * RATE) / RATE
    rng = np.random.default_rng(1)
    notes = 220 * 2 ** (np.array([0, 3, 7, 12, 10, 7, 3, 5])[(times * 4).astype(int) % 8] / 12)
    phase = 2 * np.pi * np.cumsum(notes) / RATE
    sounds = {
        "silence": np.zeros(20 * RATE),
        "noise": rng.normal(0, 0.1, 20 * RATE),
        "quiet noise": rng.normal(0, 0.003, 20 * RATE),
        "sine": 0.3 * np.sin(2 * np.pi * 440 * times),
        "music": sum(0.2 / k * np.sin(k * phase) for k in range(1, 6)) * np.exp(-4 * (times * 4 % 1)),
        "nothing": np.zeros(0),
    }
    (response,) = transcribe(audio=sounds[kind])
    assert "text" not in response
    assert response["consumed"] == pytest.approx(len(sounds[kind]) / RATE)
    assert response["language"] == ""


def test_a_cut_recording_goes_on_where_it_was_consumed(transcribe: Callable[..., Responses], recording: Any) -> None:
    first = transcribe(audio=recording[: 11 * RATE], language="en", more=True)
    consumed = first[-1]["consumed"]
    assert 5 < consumed < 11
    rest = transcribe(audio=recording[int(consumed * RATE) :], language="en")
    assert transcript(first + rest) == TEXT


def test_requests_at_once_share_the_steps(
    begin: Callable[..., Callable[[], Responses]], running: EmbeddedTriton, recording: Any
) -> None:
    steps = metric(running, "transcription_runs_total", NAME)
    tokens = metric(running, "transcription_tokens_total", NAME)
    pieces = [recording, recording[: 8 * RATE], recording[8 * RATE :], recording, recording]
    waits = [begin(audio=piece, language="en") for piece in pieces]
    texts = [transcript(wait()) for wait in waits]
    for text in (texts[0], *texts[3:], f"{texts[1]} {texts[2]}"):
        # Weights of eight bits round by the loudest row of a batch: one word may differ.
        assert SequenceMatcher(None, text.split(), TEXT.split()).ratio() > 0.95
    time.sleep(0.3)  # the metrics lag by a tenth of a second
    steps = metric(running, "transcription_runs_total", NAME) - steps
    tokens = metric(running, "transcription_tokens_total", NAME) - tokens
    assert tokens > 1.3 * steps, "windows of several requests share a step"


def test_a_prompt_and_request_parameters(transcribe: Callable[..., Responses], recording: Any) -> None:
    piece = recording[: 5 * RATE]
    plain_tokens = transcribe(audio=piece, language="en")[-1]["num_input_tokens"]
    (response,) = transcribe(audio=piece, parameters={"language": "en", "prompt": "Charles Dickens wrote:"})
    assert transcript([response]) == TEXT[:50].rsplit(" times", 1)[0] + " times"
    assert response["num_input_tokens"] > plain_tokens + 3


def test_a_disconnect_frees_the_row(
    running: EmbeddedTriton, transcribe: Callable[..., Responses], recording: Any
) -> None:
    """Minutes of speech for one row: the next request would wait for it."""
    leaver = client.InferenceServerClient(running.grpc_url)
    leaver.start_stream(lambda result, error: None)
    leaver.async_stream_infer(SMALL, [tensor("audio", np.tile(recording, 40)), tensor("language", "en")])

    def until(condition: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "the row is not free"
            time.sleep(0.02)

    until(lambda: metric(running, "transcription_rows_active", SMALL) == 1, 30)
    leaver.stop_stream(cancel_requests=True)
    until(lambda: metric(running, "transcription_rows_active", SMALL) == 0, 8)
    leaver.close()
    assert metric(running, "transcription_rows_waiting", SMALL) == 0
    responses = transcribe(SMALL, audio=recording[: 8 * RATE], language="en")
    assert transcript(responses) and all(response["num_audio_tokens"] for response in responses)


@pytest.mark.parametrize(
    ("tensors", "sentence"),
    [
        ({}, r"audio"),
        ({"audio": [0.1, np.nan]}, r"\[invalid_value:audio\]"),
        ({"audio": [0.1, np.inf]}, r"\[invalid_value:audio\]"),
        ({"audio": np.zeros(601 * RATE)}, r"\[invalid_value:audio\] .*601.0 seconds"),
        ({"audio": [0.1], "language": "xx"}, r"\[invalid_value:language\].*\ben\b.*\bfr\b"),
        ({"audio": [0.1], "task": "summarize"}, r"\[invalid_value:task\]"),
        ({"audio": [0.1], "timestamps": "line"}, r"\[invalid_value:timestamps\]"),
        ({"audio": [0.1], "temperature": [-1]}, r"\[invalid_value:temperature\]"),
        ({"audio": [0.1], "vad": '{"threshold": 7}'}, r"\[invalid_value:vad\]"),
    ],
)
def test_invalid_tensors_are_refused_and_the_next_request_is_served(
    transcribe: Callable[..., Responses], tensors: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(Exception, match=sentence):
        transcribe(**tensors)
    assert transcribe(audio=np.zeros(RATE))[-1]["consumed"] == 1
