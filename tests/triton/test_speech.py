"""The speech tensors of docs/architecture.md: Triton's client and the default voice, without the gateway."""

import queue
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc as client
from hibari import Hibari

from builders import recipe
from tests.triton.model_copies import build_default, install_copy
from tritonic.embedded import EmbeddedTriton

pytestmark = pytest.mark.triton

NAME = recipe.DEFAULT_SPEECH_RECIPE
RATE = 24_000
SENTENCES = ("Hello there, how are you today?", "I paid $3.50 to Dr. Smith on March 4th.", "And that was all.")
TEXT = " ".join(SENTENCES)


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedTriton]:
    """A Triton with the default voice, built as `up` builds it, and copies with other parameters."""
    folder = build_default(NAME)
    repository = tmp_path_factory.mktemp("speech")
    install_copy(folder, repository, NAME)
    install_copy(folder, repository, "narrow", max_rows=1, max_waiting=0, max_characters=1000, threads=1)
    with EmbeddedTriton(repository) as running:
        yield running


@dataclass
class Answer:
    """The chunks of one request, with the seconds after which each arrived."""

    chunks: list[np.ndarray] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    tokens: list[tuple[int, int]] = field(default_factory=list)

    @property
    def samples(self) -> np.ndarray:
        return np.concatenate(self.chunks)


class Speaker:
    """Sends requests over one stream. The answers come in the order of the requests only if these wait."""

    def __init__(self, server: client.InferenceServerClient) -> None:
        self.received: queue.Queue[tuple[float, Any, Any]] = queue.Queue()
        self.server = server
        server.start_stream(lambda result, error: self.received.put((time.monotonic(), result, error)))

    def send(self, text: str | bytes, model: str = NAME, id: str = "", **inputs: Any) -> float:
        tensors = []
        for name, value in ({"text": text} | inputs).items():
            array = np.array([value], np.float32 if name == "speed" else np.object_)
            if name != "speed":
                array[0] = value if isinstance(value, bytes) else value.encode()
            tensors.append(client.InferInput(name, [1], "FP32" if name == "speed" else "BYTES"))
            tensors[-1].set_data_from_numpy(array)
        self.server.async_stream_infer(model, tensors, request_id=id, enable_empty_final_response=True)
        return time.monotonic()

    def __call__(self, text: str | bytes, model: str = NAME, **inputs: Any) -> Answer:
        started, answer = self.send(text, model, **inputs), Answer()
        while True:
            arrived, result, error = self.received.get(timeout=120)
            if error is not None:
                raise error
            if (audio := result.as_numpy("audio")) is not None:
                assert audio.dtype == np.int16 and result.as_numpy("sample_rate").tolist() == [RATE]
                answer.chunks.append(audio)
                answer.seconds.append(arrived - started)
                counts = (result.as_numpy("num_input_tokens"), result.as_numpy("num_output_tokens"))
                answer.tokens.append((int(counts[0][0]), int(counts[1][0])))
            if result.get_response().parameters["triton_final_response"].bool_param:
                return answer


@pytest.fixture
def speak(triton: EmbeddedTriton) -> Iterator[Speaker]:
    with client.InferenceServerClient(triton.grpc_url) as server:
        yield Speaker(server)


def test_each_sentence_is_what_the_library_speaks(speak: Speaker) -> None:
    answer, library = speak(TEXT), Hibari()
    (first, rest, *others), ((tokens, frames), (more_tokens, more_frames), *other_counts) = answer.chunks, answer.tokens
    assert len(first) == RATE / 2, "the first half second is sent alone"
    chunks = [np.concatenate([first, rest]), *others]
    all_counts = [(tokens + more_tokens, frames + more_frames), *other_counts]
    for chunk, counts, sentence in zip(chunks, all_counts, SENTENCES, strict=True):
        expected = library(sentence, seed=0)
        assert np.abs(chunk - expected * 32767).max() <= 1
        assert counts == (len(library.ids(library.phonemize(sentence)[0])) - 2, len(expected) // 300)
    assert np.array_equal(speak(TEXT, voice="heart", language="en", speed=1.0).samples, answer.samples)


def test_the_first_sentence_is_sent_while_others_are_not_spoken(speak: Speaker) -> None:
    answer = speak("This is one of many sentences. " * 60)
    assert len(answer.chunks) == 61
    assert answer.seconds[0] < 0.5 * answer.seconds[-1]


def test_speeds_change_the_length_in_proportion(speak: Speaker) -> None:
    length = len(speak(SENTENCES[0]).samples)
    for speed in (0.25, 0.5, 2.0, 4.0):
        assert len(speak(SENTENCES[0], speed=speed).samples) * speed == pytest.approx(length, rel=0.3)


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ({"text": ""}, r"\[invalid_value:text\]"),
        ({"text": "你好"}, r'\[invalid_value:text\] The voice Heart cannot speak Chinese characters \("你好"\)'),
        ({"text": "👍"}, r"\[invalid_value:text\] There is nothing to say"),
        ({"text": b"\xff"}, r"\[invalid_value:text\] The text is not UTF-8"),
        ({"text": "<speak>hi</speak>"}, r"\[invalid_value:text\] SSML"),
        ({"text": "hi", "voice": "nova"}, r"\[invalid_value:voice\] There is no voice 'nova'; the voices are heart"),
        ({"text": "hi", "voice": b"\xff"}, r"\[invalid_value:voice\] This is not UTF-8"),
        ({"text": "hi", "language": "de"}, r"\[invalid_value:language\]"),
        ({"text": "hi", "speed": 5.0}, r"\[invalid_value:speed\]"),
        ({"text": "hi", "instructions": "whisper"}, r"\[unsupported_option:instructions\]"),
        ({"text": "x " * 501, "model": "narrow"}, r"\[invalid_value:text\].* 1002 characters; .* 1000"),
    ],
)
def test_errors_name_the_input(speak: Speaker, inputs: dict[str, Any], sentence: str) -> None:
    with pytest.raises(Exception, match=sentence):
        speak(**inputs)


def test_ten_thousand_digits_are_spoken_piece_by_piece(triton: EmbeddedTriton, speak: Speaker) -> None:
    with client.InferenceServerClient(triton.grpc_url) as server:
        leaving = Speaker(server)
        leaving.send("1" * 10_000)
        for _ in range(3):
            _, result, error = leaving.received.get(timeout=30)
            assert error is None
            # A digit takes a third of a second, and the network reads 400 phonemes at once.
            assert result.as_numpy("num_input_tokens")[0] <= 400 and len(result.as_numpy("audio")) < 60 * RATE
        server.stop_stream(cancel_requests=True)
    assert len(speak("1" * 500).samples) > 500 * 0.2 * RATE


def test_requests_take_turns_and_a_full_queue_refuses(triton: EmbeddedTriton, speak: Speaker) -> None:
    speak.send("This is one of many sentences. " * 400, id="long")
    speak.send("Short.", id="short")
    finished: list[str] = []
    while len(finished) < 2:
        _, result, error = speak.received.get(timeout=120)
        assert error is None
        if result.get_response().parameters["triton_final_response"].bool_param:
            finished.append(result.get_response().id)
    assert finished == ["short", "long"]
    speak.send("This is one of many sentences. " * 30, "narrow", id="long")
    with pytest.raises(Exception, match=r"\[overloaded\] 1 texts"):
        speak("Short.", "narrow")


def test_a_disconnect_ends_the_work(triton: EmbeddedTriton, speak: Speaker) -> None:
    def pieces() -> float:
        metrics = httpx.get(triton.metrics_url, trust_env=False).text
        lines = [line for line in metrics.splitlines() if line.startswith("speech_pieces_total") and NAME in line]
        return float(lines[0].rpartition(" ")[2]) if lines else 0.0

    with client.InferenceServerClient(triton.grpc_url) as server:
        leaving = Speaker(server)
        leaving.send("This is one of many sentences. " * 2000)
        leaving.received.get(timeout=60)
        server.stop_stream(cancel_requests=True)
    assert speak("Still here.").chunks
    settled = _settled(pieces)
    assert settled < 1500, "most of the sentences were never spoken"


def _settled(value: Callable[[], float]) -> float:
    """Return the value once it has not changed for a second."""
    last, deadline = -1.0, time.monotonic() + 60
    while (now := value()) != last:
        assert time.monotonic() < deadline
        last = now
        time.sleep(1)
    return now
