"""Requests share the threads by the piece; each gets its sounds in order, and exactly one last response."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import backends.speech.scheduler as scheduler_module
from backends.serving.errors import Cancelled, EngineFailed, InvalidValue, Overloaded, UnsupportedOption
from backends.speech.request_frontend import Request, SpeechFrontend
from backends.speech.scheduler import SpeechScheduler
from backends.speech.speaker import PieceSpeaker
from tests.unit.speech.speech_stand_ins import OPTIONS, RecordingSender, ScriptedModel, Spelling, until

LONG = "".join(f"Sentence {letter} is spoken. " for letter in "abcdefghijklmnopqrst")


@pytest.fixture
def model() -> ScriptedModel:
    return ScriptedModel()


@pytest.fixture(params=[1, 3], ids=["one thread", "three threads"])
def threads(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def frontend(model: ScriptedModel, threads: int) -> Iterator[SpeechFrontend]:
    scheduler = SpeechScheduler(PieceSpeaker(model), threads, OPTIONS.max_rows)
    frontend = SpeechFrontend(scheduler, model, Spelling(), OPTIONS)
    yield frontend
    model.gate.set()
    model.rest_gate.set()
    frontend.close()


@pytest.fixture
def ask(frontend: SpeechFrontend) -> Callable[..., RecordingSender]:
    def send(text: str | None, sender: RecordingSender | None = None, **inputs: Any) -> RecordingSender:
        sender = sender or RecordingSender()
        frontend.add_request(Request(None if text is None else text.encode(), **inputs), sender)
        return sender

    return send


def test_the_sounds_of_a_text_come_in_order(ask: Callable[..., RecordingSender]) -> None:
    sender = ask(LONG)
    assert "".join(f"{sentence} " for sentence in sender.text()) == LONG
    assert sender.counts[0] == (100, len("Sentence a is spoken."), 2 * len("Sentence a is spoken."))


@pytest.mark.parametrize(
    ("inputs", "error", "sentence"),
    [
        ({"text": None}, InvalidValue, r"\[invalid_value:text\]"),
        ({"text": "hi", "voice": "eve"}, InvalidValue, r"\[invalid_value:voice\].*'eve'; the voices are ann, bob\."),
        ({"text": "hi", "language": "fr"}, InvalidValue, r"\[invalid_value:language\] The voice Ann speaks en-US"),
        ({"text": "hi", "voice": "bob", "language": "en-US"}, InvalidValue, r"Bob speaks en-GB"),
        ({"text": "hi", "speed": 0.2}, InvalidValue, r"\[invalid_value:speed\].*from 0.25 to 4, not 0.2"),
        ({"text": "hi", "speed": float("nan")}, InvalidValue, r"\[invalid_value:speed\]"),
        ({"text": "hi", "instructions": "sadly"}, UnsupportedOption, r"\[unsupported_option:instructions\]"),
        ({"text": "x" * 2001}, InvalidValue, r"2001 characters; this model speaks 2000"),
        ({"text": "你好"}, InvalidValue, r"The voice Ann cannot speak Chinese"),
        ({"text": "..."}, InvalidValue, r"nothing to say"),
        ({"text": "Fine. A # here."}, EngineFailed, r"could not be spoken: the network is broken"),
    ],
)
def test_errors_name_the_input(
    ask: Callable[..., RecordingSender], inputs: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        ask(**inputs).text()
    assert ask("Still alive.").text() == ["Still alive."]


def test_voice_language_and_speed_reach_the_model(ask: Callable[..., RecordingSender], model: ScriptedModel) -> None:
    for inputs in ({}, {"voice": "bob", "language": "en_gb"}, {"language": "EN", "speed": 1.5, "instructions": " "}):
        ask("Hello.", **inputs).text()
    assert model.spoken == [("Hello.", "ann", 1.0), ("Hello.", "bob", 1.0), ("Hello.", "ann", 1.5)]
    (chunk,) = sender.chunks if (sender := ask("Hello.", speed=4.0)).text() else []
    assert model.spoken[-1] == ("Hello.", "ann", 2.0), "the model speaks at its own limit, and the rest is stretched"
    assert len(chunk) <= len("Hello.")


def test_a_short_text_is_not_kept_waiting_by_a_long_one(
    ask: Callable[..., RecordingSender], frontend: SpeechFrontend, model: ScriptedModel, threads: int
) -> None:
    model.gate.clear()
    long = ask(LONG)
    until(lambda: len(model.spoken) == 1)
    short = ask("Short one.")
    until(lambda: frontend.scheduler.stats.requests_speaking == 2)
    model.gate.set()
    assert short.text() == ["Short one."]
    assert [text for text, _, _ in model.spoken].index("Short one.") <= 2 * threads
    assert len(long.text()) == 20


def test_the_first_piece_is_spoken_alone(ask: Callable[..., RecordingSender], model: ScriptedModel) -> None:
    model.gate.clear()
    sender = ask(LONG)
    until(lambda: len(model.spoken) == 1)
    time.sleep(0.05)  # a second piece would begin at once
    assert len(model.spoken) == 1
    model.gate.set()
    assert len(sender.text()) == 20


def test_the_first_part_of_a_piece_is_sent_before_the_rest_is_made(
    ask: Callable[..., RecordingSender], frontend: SpeechFrontend, model: ScriptedModel, threads: int
) -> None:
    model.rest_gate.clear()
    sender = ask("First| part. " + LONG)
    until(lambda: len(sender.chunks) == 1)
    if threads > 1:  # later pieces are spoken meanwhile, and wait for their turn
        until(lambda: len(model.spoken) == threads + 3)
    assert len(sender.chunks) == 1 and not sender.ended.is_set()
    model.rest_gate.set()
    sentences = sender.text()
    assert sentences[:3] == ["First|", " part.", "Sentence a is spoken."] and len(sentences) == 22
    length = len("First| part.")
    assert sender.counts[:2] == [(100, length, 12), (100, 0, 2 * length - 12)]
    assert frontend.scheduler.stats.pieces == 21
    assert ask("Not| again.", speed=4.0).text() != [], "a stretched piece comes whole"


def test_later_pieces_wait_until_the_first_sound_is_sent(
    ask: Callable[..., RecordingSender],
    model: ScriptedModel,
    threads: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scheduler_module, "_HEAD_START_SECONDS", 0.2)
    slow = RecordingSender()
    slow.gate.clear()
    started = time.monotonic()
    ask(LONG, slow)
    until(lambda: len(model.spoken) > 1)
    assert time.monotonic() - started >= 0.2, "a sound that is not taken delays them for this time at most"
    slow.gate.set()
    assert len(slow.text()) == 20
    monkeypatch.setattr(scheduler_module, "_HEAD_START_SECONDS", 30.0)
    assert len(ask(LONG).text()) == 20, "they start as soon as it is sent"


def test_a_text_whose_sounds_are_not_taken_is_not_read_on(
    ask: Callable[..., RecordingSender], model: ScriptedModel, threads: int
) -> None:
    slow = RecordingSender()
    slow.gate.clear()
    ask(LONG, slow)
    until(lambda: len(model.spoken) == threads + 2)
    assert ask("Another.").text() == ["Another."]
    assert len(model.spoken) == threads + 3
    slow.gate.set()
    assert len(slow.text()) == 20


def test_a_disconnect_ends_the_work(
    ask: Callable[..., RecordingSender], frontend: SpeechFrontend, model: ScriptedModel
) -> None:
    model.gate.clear()
    sender = ask(LONG)
    until(lambda: len(model.spoken) == 1)
    sender.disconnected = True
    with pytest.raises(Cancelled):
        sender.text()
    model.gate.set()
    assert ask("Next.").text() == ["Next."]
    assert len(model.spoken) == 2
    assert frontend.scheduler.stats.requests_cancelled == 1


def test_more_requests_than_the_queue_holds_are_refused(
    ask: Callable[..., RecordingSender], frontend: SpeechFrontend, model: ScriptedModel
) -> None:
    model.gate.clear()
    waiting = [ask("Hello.") for _ in range(OPTIONS.max_rows + OPTIONS.max_waiting)]
    with pytest.raises(Overloaded):
        ask("One too many.").text()
    until(lambda: frontend.scheduler.stats.requests_waiting == OPTIONS.max_waiting)
    assert frontend.scheduler.stats.requests_speaking == OPTIONS.max_rows
    model.gate.set()
    assert [sender.text() for sender in waiting] == [["Hello."]] * len(waiting)


def test_closing_fails_the_open_requests(
    ask: Callable[..., RecordingSender], frontend: SpeechFrontend, model: ScriptedModel
) -> None:
    slow = RecordingSender()
    slow.gate.clear()
    senders = [ask(LONG, slow), ask(LONG, RecordingSender())]
    until(lambda: len(model.spoken) > 2)
    slow.gate.set()
    frontend.close()
    for sender in senders:
        assert sender.ended.wait(30)
    with pytest.raises(EngineFailed, match="being unloaded"):
        ask("Too late.").text()
