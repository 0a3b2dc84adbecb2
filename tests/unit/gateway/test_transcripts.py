"""Transcripts as text, subtitles and JSON."""

from collections.abc import AsyncIterator

import orjson
import pytest

from gateway.operations.language_names import LANGUAGES, language_code, language_name
from gateway.operations.operation import Output, Progress
from gateway.operations.transcribe import Transcribe
from gateway.operations.transcript import Transcript
from gateway.operations.transcript_events import (
    PieceEnd,
    Segment,
    TokenLogprob,
    TranscriptionEnd,
    TranscriptionEvent,
    Word,
)

SEGMENTS = (
    Segment(text=" Hello & <goodbye>.", start=0.0, end=1.2345, words=(Word(" Hello", 0.0, 0.5),)),
    Segment(text="  ", start=1.5, end=2.0),
    Segment(text=" One --> two\n\n  three\u2028four ", start=3599.9996, end=360_001.5, avg_logprob=-0.5),
)


def transcript(*segments: Segment, language: str = "en", tokens: int | None = None) -> Transcript:
    made = Transcript("transcribe")
    for segment in segments:
        made.add(segment)
    made.add(PieceEnd(end=9.0, total=None, audio_seconds=9.0))
    made.add(TranscriptionEnd(language=language, duration=9.0, prompt_tokens=tokens, completion_tokens=tokens))
    return made


def test_subtitles() -> None:
    assert transcript(*SEGMENTS).srt() == (
        "1\n00:00:00,000 --> 00:00:01,234\nHello & <goodbye>.\n\n"
        "2\n01:00:00,000 --> 100:00:01,500\nOne -> two\nthree\nfour\n\n"
    )
    assert transcript(*SEGMENTS).vtt() == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.234\nHello &amp; &lt;goodbye&gt;.\n\n"
        "01:00:00.000 --> 100:00:01.500\nOne --&gt; two\nthree\nfour\n\n"
    )
    assert (transcript().srt(), transcript().vtt()) == ("", "WEBVTT\n\n")
    # Times that a model does not report, or that go backwards.
    segments = (Segment(text="a"), Segment(text="b", start=8.0, end=7.0))
    assert transcript(*segments).srt().count("00:00:00,000 --> 00:00:09,000") == 1
    assert "00:00:08,000 --> 00:00:08,000" in transcript(*segments).srt()


def test_json_tells_tokens_of_sound_from_those_of_the_prompt() -> None:
    made = Transcript("transcribe")
    made.add(TranscriptionEnd(language="en", duration=9.0, prompt_tokens=30, audio_tokens=25, completion_tokens=2))
    assert made.json()["usage"] == {
        "type": "tokens",
        "input_tokens": 30,
        "input_token_details": {"audio_tokens": 25, "text_tokens": 5},
        "output_tokens": 2,
        "total_tokens": 32,
    }


def test_json_has_the_counts_of_the_model_or_the_length() -> None:
    assert transcript(Segment(text=" Hi")).json() == {"text": "Hi", "usage": {"type": "duration", "seconds": 9.0}}
    entry = TokenLogprob(" Hi", (32, 72, 105), -0.5)
    found = transcript(Segment(text=" Hi", logprobs=(entry,)), tokens=3).json(logprobs=True, languages=True)
    assert found == {
        "text": "Hi",
        "languages": [{"code": "en"}],
        "logprobs": [{"token": " Hi", "bytes": [32, 72, 105], "logprob": -0.5}],
        "usage": {"type": "tokens", "input_tokens": 3, "output_tokens": 3, "total_tokens": 6},
    }
    assert transcript(language="").json(languages=True)["languages"] == []


def test_verbose_json_has_every_field_of_a_segment() -> None:
    verbose = transcript(*SEGMENTS).verbose(words=True)
    assert (verbose["language"], verbose["duration"]) == ("english", 9.0)
    assert verbose["words"] == [{"word": "Hello", "start": 0.0, "end": 0.5}]
    assert verbose["segments"][0] == {
        **{"id": 0, "seek": 0, "start": 0.0, "end": 1.234, "text": " Hello & <goodbye>.", "tokens": []},
        **{"temperature": 0.0, "avg_logprob": 0.0, "compression_ratio": 0.0, "no_speech_prob": 0.0},
    }
    translated = Transcript("translate", 0.5)
    translated.add(SEGMENTS[0])
    assert translated.verbose()["language"] == "english" and "usage" not in translated.verbose()
    assert translated.verbose()["segments"][0]["temperature"] == 0.5


@pytest.mark.parametrize("output_format", ["text", "srt", "vtt", "json", "verbose_json"])
async def test_a_task_stores_the_format_that_was_asked_for(output_format: str) -> None:
    request = Transcribe(model="m", audio=b"", output_format=output_format, timestamps="word")  # type: ignore[arg-type]

    async def events() -> AsyncIterator[TranscriptionEvent]:
        yield SEGMENTS[0]
        yield PieceEnd(end=4.0, total=8.0, audio_seconds=4.0)
        yield Segment(text=" b", start=5.0, end=6.0)
        yield TranscriptionEnd(language="de", duration=8.0)

    *progress, output = [event async for event in request.task_events(events())]
    assert progress == [Progress(0.5), Progress(0.75)]
    assert isinstance(output, Output) and output.content_type == request.expected_outputs()[0].content_type
    if "json" in output_format:
        assert orjson.loads(output.data)["text"] == "Hello & <goodbye>. b"
    else:
        assert b"Hello" in output.data


@pytest.mark.parametrize(
    ("text", "code"),
    [
        *(("en", "en"), ("EN", "en"), ("en-US", "en"), ("pt_BR", "pt"), ("zh-Hant-TW", "zh"), ("German", "de")),
        *((" haitian creole ", "ht"), ("castilian", "es"), ("iw", "he"), ("nb-NO", "no"), ("yue", "yue")),
        *(("xx", None), ("english-us", None), ("klingon", None), ("", None), ("e", None), ("x" * 10_000, None)),
    ],
)
def test_languages(text: str, code: str | None) -> None:
    assert language_code(text) == code


def test_every_language_has_a_name_of_its_own() -> None:
    assert len(LANGUAGES) == 100 == len(set(LANGUAGES.values()))
    assert language_name("de") == "german" and language_name("zz") == "zz"
