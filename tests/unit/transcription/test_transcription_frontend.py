"""Requests for transcriptions on scripted networks: batching, order, languages, fallback, disconnects, refusals."""

import json
import random
from collections.abc import Callable

import numpy as np
import pytest

from backends.serving.errors import (
    Cancelled,
    EngineFailed,
    GenerationError,
    InvalidValue,
    Overloaded,
    UnsupportedOption,
)
from backends.transcription.options import Options
from backends.transcription.request_frontend import TranscriptionFrontend
from tests.unit.transcription.conftest import MAX_ROWS, RecordingSender, sound, wait_for
from tests.unit.transcription.scripted_networks import SPECIAL, Script, ScriptedNetworks, at, says

Ask = Callable[..., RecordingSender]


def letters(seed: int, length: int) -> str:
    """A text that does not repeat itself."""
    rng = random.Random(seed)
    return "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(length))


def unlikely(text: str) -> list[dict[int, float]]:
    """A text of which no token is likely: 40 others are nearly as likely."""
    return [dict.fromkeys(range(100, 140), 0.019) | place for place in says(text, 0.02)]


def test_windows_of_many_requests_share_the_steps(
    ask: Ask, scripts: dict[int, Script], networks: ScriptedNetworks
) -> None:
    """Rows of different texts, prompts and lengths join and leave: each has its own text."""
    rng = random.Random(5)
    texts = {}
    for loudness in range(1, 25):
        texts[loudness] = "".join(rng.choice("abc xyz é漢") for _ in range(rng.randint(1, 40)))
        scripts[loudness] = Script(says(" " + texts[loudness]), language=rng.choice(["en", "de"]))
    networks.gate.clear()
    senders = {}
    for loudness in range(1, 9):
        prompt = "x" * rng.choice([0, 3, 50])
        language = rng.choice([None, scripts[loudness].language])
        senders[loudness] = ask(sound((loudness, rng.choice([1, 5]))), prompt=prompt, language=language)
    networks.gate.set()
    for loudness in range(1, 9):
        assert senders[loudness].text() == " " + texts[loudness]
        assert senders[loudness].outcome()[0].language == scripts[loudness].language
    assert max(map(len, networks.steps)) > 1, "no rows shared a step"
    assert max(map(len, networks.steps)) <= MAX_ROWS
    for loudness in range(9, 25):
        assert ask(sound((loudness, 1))).text() == " " + texts[loudness]


def test_segments_of_a_long_recording_come_in_order(
    ask: Ask, scripts: dict[int, Script], networks: ScriptedNetworks
) -> None:
    """Later windows have shorter texts, so they are decoded first."""
    texts = [letters(length, length) for length in (60, 40, 20, 10)]
    for number, text in enumerate(texts, 1):
        scripts[number] = Script(says(text))
    recording = sound(*((number, 20) for number in range(1, 5)))
    responses = ask(recording, language="en").outcome()
    segments = [response.segment for response in responses if response.segment]
    assert [segment.text for segment in segments] == texts
    starts = [segment.start for segment in segments]
    assert starts == pytest.approx([0.7 + 21 * number for number in range(4)], abs=0.04)
    assert [segment.end for segment in segments] == pytest.approx([21.4 + 21 * number for number in range(4)], abs=0.04)
    assert responses[-1].consumed == pytest.approx(len(recording) / 16_000)
    assert all(response.consumed is None for response in responses[:-1])
    assert sum(response.num_output_tokens for response in responses) == 60 + 40 + 20 + 10 + 2 * 4, (
        "a timestamp before each text and the end after it"
    )
    # 50 a second, and three tokens of each prompt
    assert sum(response.num_input_tokens for response in responses) == pytest.approx(4 * (20.7 * 50 + 3), abs=8)
    assert sum(response.num_input_tokens - response.num_audio_tokens for response in responses) == 4 * 3


def test_a_short_request_overtakes_a_long_recording(
    ask: Ask, scripts: dict[int, Script], networks: ScriptedNetworks, frontend: TranscriptionFrontend
) -> None:
    long_text = letters(1, 60)
    scripts[1] = Script(says(long_text))
    scripts[2] = Script(says("short"))
    networks.gate.clear()
    long = ask(sound((1, 80)), language="en")
    short = ask(sound((2, 1)), language="en")
    stats = frontend.scheduler.stats
    wait_for(lambda: stats.rows_waiting + stats.rows_active == 4)
    networks.gate.set()
    assert short.text() == "short"
    assert long.text() == long_text * 3
    last_steps = {window: number for number, windows in enumerate(networks.steps) for window in windows}
    assert last_steps[2] < last_steps[1]
    # One recording has at most half of the rows.
    assert max(windows.count(1) for windows in networks.steps) <= MAX_ROWS // 2


def test_the_first_window_with_speech_decides_the_language(ask: Ask, scripts: dict[int, Script]) -> None:
    scripts[1] = Script(unlikely("hm"), language="en", no_speech=0.9)
    scripts[2] = Script(says("eins"), language="de")
    scripts[3] = Script(says("zwei"), language="en")
    responses = ask(sound((1, 25), (2, 25), (3, 25))).outcome()
    assert [(response.segment.text, response.language) for response in responses if response.segment] == [
        ("eins", "de"),
        ("zwei", "de"),
    ]


def test_the_prompt_precedes_every_window_and_decides_no_language(
    ask: Ask, scripts: dict[int, Script], networks: ScriptedNetworks
) -> None:
    scripts[1] = scripts[2] = Script(says("ja"), language="de")
    responses = ask(sound((1, 25), (2, 25)), prompt=" <|endoftext|> words ").outcome()
    assert [response.language for response in responses] == ["de", "de"]
    start = SPECIAL.start_of_transcript
    with_prompt = [prompt for prompt in networks.prompts if len(prompt) > 1]
    assert networks.prompts.count([start]) == 1, "the language is detected once, without the prompt"
    assert len(with_prompt) == 2
    for prompt in with_prompt:
        assert prompt[0] == SPECIAL.previous
        assert prompt[-1] == start
        assert len(prompt) == 2 + len(" <|endoftext|> words")
        assert all(token < SPECIAL.end_of_text for token in prompt[1:-1]), "a caller cannot write special tokens"


def test_a_text_that_repeats_itself_is_sampled_again(ask: Ask, scripts: dict[int, Script]) -> None:
    letter, end = 64, SPECIAL.end_of_text
    scripts[1] = Script([{letter: 0.9}, *[{letter: 0.55, end: 0.45}] * 300])
    (response,) = ask(sound((1, 2)), language="en").outcome()
    assert response.segment is not None
    assert response.segment.temperature > 0
    assert response.segment.compression_ratio <= 2.4
    assert response.num_output_tokens > 224, "the rejected attempt counts"
    # With a temperature of its own, a request gets what comes.
    (response,) = ask(sound((1, 2)), language="en", temperature=0.0).outcome()
    assert response.segment is not None
    assert (response.segment.temperature, response.num_output_tokens) == (0, 224)
    assert response.segment.compression_ratio > 2.4


def test_an_unlikely_text_is_tried_at_every_temperature_and_the_likeliest_attempt_is_kept(
    ask: Ask, scripts: dict[int, Script]
) -> None:
    scripts[1] = Script(unlikely("hello"), no_speech=0.3)
    (response,) = ask(sound((1, 2)), language="en").outcome()
    assert response.segment is not None
    assert len(response.segment.token_ids) == 1 + 5, "a timestamp and the text"
    assert response.num_output_tokens == 6 * (1 + 5 + 1), "with the end, at each temperature"
    assert response.segment.avg_logprob < -1


@pytest.mark.parametrize(
    ("no_speech", "is_unlikely", "text"), [(0.9, True, ""), (0.9, False, "yes"), (0.3, False, "yes")]
)
def test_unlikely_text_without_speech_is_dropped(
    ask: Ask, scripts: dict[int, Script], no_speech: float, is_unlikely: bool, text: str
) -> None:
    scripts[1] = Script(unlikely("yes") if is_unlikely else says("yes"), no_speech=no_speech)
    (response,) = ask(sound((1, 2)), language="en").outcome()
    assert (response.segment.text if response.segment else "") == text
    assert response.num_output_tokens == 5


def test_silence_has_no_text(ask: Ask, networks: ScriptedNetworks) -> None:
    for audio in (np.zeros(64_000, np.float32), np.zeros(0, np.float32)):
        (response,) = ask(audio).outcome()
        assert (response.segment, response.language) == (None, "")
        assert response.consumed == len(audio) / 16_000
    assert networks.encoded == []


def test_more_sound_follows(ask: Ask, scripts: dict[int, Script]) -> None:
    """Speech that the end of the recording may have cut is left for the next request."""
    scripts[1], scripts[2] = Script(says("one")), Script(says("two"))
    recording = sound((1, 3), (2, 3))[:-16_000]  # it ends in the middle of the second
    (response,) = ask(recording, language="en", more=True).outcome()
    assert response.segment is not None
    assert response.segment.text == "one"
    assert response.consumed == pytest.approx(5 - 0.3, abs=0.04)
    rest = recording[int((response.consumed or 0) * 16_000) :]
    (response,) = ask(rest, language="en").outcome()
    assert response.segment is not None
    assert response.segment.text == "two"
    # Silence is consumed but for a moment in which speech may begin.
    (response,) = ask(np.zeros(160_000, np.float32), more=True).outcome()
    assert response.consumed == pytest.approx(9.7)


def test_segments_and_words_have_times(ask: Ask, scripts: dict[int, Script]) -> None:
    scripts[1] = Script([at(0), *says(" Hi you."), at(1), at(1.2), *says(" Bye"), at(1.8)])
    segments = [response.segment for response in ask(sound((1, 2)), language="en", timestamps="segment").outcome()]
    offset = 0.7 + 0.008  # the padding begins at whole frames
    assert [(segment.text, segment.words) for segment in segments if segment] == [(" Hi you.", None), (" Bye", None)]
    times = [time for segment in segments if segment for time in (segment.start, segment.end)]
    assert times == pytest.approx([offset + time for time in (0, 1, 1.2, 1.8)], abs=0.03)
    segments = [response.segment for response in ask(sound((1, 2)), language="en", timestamps="word").outcome()]
    words = [word for segment in segments if segment for word in json.loads(segment.words or "[]")]
    assert [word["word"] for word in words] == [" Hi", " you.", " Bye"]
    # The scripted attention gives each token a tenth of a second.
    assert [word["start"] for word in words] == pytest.approx([offset + time for time in (0, 0.3, 0.8)], abs=0.06)
    assert [word["end"] for word in words] == pytest.approx([offset + time for time in (0.3, 0.8, 1.2)], abs=0.06)
    assert all(0.8 < word["probability"] <= 1 for word in words)


@pytest.mark.parametrize("options", [Options(max_rows=1)])
def test_a_translation_has_english_words(ask: Ask, scripts: dict[int, Script], networks: ScriptedNetworks) -> None:
    """Chinese would have a word for each character."""
    scripts[1] = Script([at(0), *says(" two words"), at(1)], language="zh")
    for task, expected in (("translate", [" two", " words"]), ("transcribe", list(" two words"))):
        (response,) = ask(sound((1, 2)), task=task, timestamps="word").outcome()
        assert response.language == "zh"
        assert response.segment is not None
        assert [word["word"] for word in json.loads(response.segment.words or "")] == expected


def test_log_probabilities_of_tokens(ask: Ask, scripts: dict[int, Script]) -> None:
    scripts[1] = Script(says("é!", 0.5))
    (response,) = ask(sound((1, 2)), language="en", return_logprobs=True).outcome()
    assert response.segment is not None
    entries = json.loads(response.segment.logprobs or "")
    assert [entry["bytes"] for entry in entries] == [[0xC3], [0xA9], [0x21]]
    assert entries[2]["token"] == "!"
    assert [entry["logprob"] for entry in entries] == pytest.approx([0.0] * 3, abs=1e-3)


def test_a_disconnect_frees_the_rows(
    ask: Ask, scripts: dict[int, Script], networks: ScriptedNetworks, frontend: TranscriptionFrontend
) -> None:
    scripts[1] = Script(says(letters(1, 200)))
    scripts[2] = Script(says("next"))
    networks.gate.clear()
    leavers = [ask(sound((1, 25), (1, 25)), language="en") for _ in range(2)]
    stats = frontend.scheduler.stats
    wait_for(lambda: stats.rows_active + stats.rows_waiting == 4)
    for leaver in leavers:
        leaver.disconnected = True
    for leaver in leavers:
        with pytest.raises(Cancelled):
            leaver.outcome()
    assert (stats.rows_waiting, stats.requests_cancelled) == (0, 2)
    networks.gate.set()
    assert ask(sound((2, 1)), language="en").text() == "next"
    wait_for(lambda: stats.rows_active == 0)
    assert len(networks.steps) < 50, "rows of requests that are gone were decoded on"


def test_a_failure_ends_the_requests_of_the_batch_and_no_others(ask: Ask, scripts: dict[int, Script]) -> None:
    scripts[2] = Script(says("fine"))
    with pytest.raises(EngineFailed, match="could not be transcribed"):
        ask(sound((9, 1)), language="en").outcome()  # there is no script for it
    assert ask(sound((2, 1)), language="en").text() == "fine"


@pytest.mark.parametrize(
    ("audio", "inputs", "error", "message"),
    [
        (None, {}, InvalidValue, r"\[invalid_value:audio\]"),
        (np.full(100, np.nan, np.float32), {}, InvalidValue, r"\[invalid_value:audio\].*finite"),
        (np.full(100, -np.inf, np.float32), {}, InvalidValue, r"\[invalid_value:audio\].*finite"),
        (np.full(100, 20_000, np.float32), {}, InvalidValue, r"\[invalid_value:audio\].*between -1 and 1"),
        (np.zeros(101 * 16_000, np.float32), {}, InvalidValue, r"\[invalid_value:audio\] .*101.0 seconds.*100"),
        (sound((1, 1)), {"language": "xx"}, InvalidValue, r"\[invalid_value:language\].*'xx'.* de, en, zh"),
        (sound((1, 1)), {"task": "sing"}, InvalidValue, r"\[invalid_value:task\]"),
        (sound((1, 1)), {"timestamps": "line"}, InvalidValue, r"\[invalid_value:timestamps\]"),
        (sound((1, 1)), {"temperature": -1.0}, InvalidValue, r"\[invalid_value:temperature\]"),
        (sound((1, 1)), {"temperature": float("nan")}, InvalidValue, r"\[invalid_value:temperature\]"),
        (sound((1, 1)), {"vad": b"{"}, InvalidValue, r"\[invalid_value:vad\]"),
        (sound((1, 1)), {"vad": b"[]"}, InvalidValue, r"\[invalid_value:vad\]"),
        (sound((1, 1)), {"vad": b'{"type": 1}'}, InvalidValue, r"\[invalid_value:vad\].*'type'"),
        (sound((1, 1)), {"vad": b'{"threshold": 2}'}, InvalidValue, r"\[invalid_value:vad\] threshold"),
    ],
)
def test_invalid_inputs_are_refused(
    ask: Ask, audio: object, inputs: dict[str, object], error: type[GenerationError], message: str
) -> None:
    with pytest.raises(error, match=message):
        ask(audio, **inputs).outcome()


@pytest.mark.parametrize("options", [Options(max_rows=1, languages=("de", "fr"))])
def test_other_languages_are_not_detected(ask: Ask, scripts: dict[int, Script]) -> None:
    scripts[1] = Script(says("yes"), language="en")
    assert ask(sound((1, 1))).outcome()[0].language == "de"


@pytest.mark.parametrize("options", [Options(max_rows=1, tasks=("transcribe",), languages=("en",))])
def test_a_model_may_offer_less_than_its_checkpoint(ask: Ask, scripts: dict[int, Script]) -> None:
    scripts[1] = Script(says("yes"), language="de")
    assert ask(sound((1, 1))).outcome()[0].language == "en"
    with pytest.raises(UnsupportedOption, match=r"\[unsupported_option:task\]"):
        ask(sound((1, 1)), task="translate").outcome()
    with pytest.raises(InvalidValue, match=r"\[invalid_value:language\]"):
        ask(sound((1, 1)), language="de").outcome()


def test_the_queue_is_bounded(ask: Ask, scripts: dict[int, Script], networks: ScriptedNetworks) -> None:
    scripts[1] = Script(says("yes"))
    networks.gate.clear()
    admitted = [ask(sound((1, 1)), language="en") for _ in range(9)]
    with pytest.raises(Overloaded):
        ask(sound((1, 1))).outcome()
    networks.gate.set()
    assert [sender.text() for sender in admitted] == ["yes"] * 9


def test_the_sound_that_waits_is_bounded(ask: Ask, scripts: dict[int, Script], networks: ScriptedNetworks) -> None:
    scripts[1] = Script(says("yes"))
    networks.gate.clear()
    first, second = ask(sound((1, 20)), language="en"), ask(sound((1, 80), (1, 15)), language="en")
    with pytest.raises(Overloaded, match="120 seconds"):
        ask(sound((1, 79))).outcome()
    third = ask(sound((1, 70)), language="en")
    networks.gate.set()
    assert [sender.text() for sender in (first, second, third)] == ["yes", "yes" * 4, "yes" * 3]


def test_closing_fails_what_is_open(
    ask: Ask, scripts: dict[int, Script], networks: ScriptedNetworks, frontend: TranscriptionFrontend
) -> None:
    scripts[1] = Script(says(letters(1, 100)))
    networks.gate.clear()
    senders = [ask(sound((1, 1)), language="en") for _ in range(6)]
    wait_for(lambda: frontend.scheduler.stats.rows_active + frontend.scheduler.stats.rows_waiting == 6)
    networks.gate.set()
    frontend.close()
    failed = 0
    for sender in senders:
        try:
            sender.outcome()
        except EngineFailed as error:
            assert "unloaded" in str(error)
            failed += 1
    assert failed
