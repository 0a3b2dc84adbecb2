"""The voices of a speech model: their names, OpenAI's names for them, and the parameters that tell of them."""

import json
from typing import Any

import pytest

from gateway.model_card.speech import OPENAI_VOICES, SpeechCard, parse_speech

NAMES = [name for names in OPENAI_VOICES.values() for name in names]


def card(*voices: Any, **parameters: str) -> SpeechCard:
    return parse_speech({"voices": json.dumps(voices), **parameters})


def voice(name: str, gender: str | None = None, language: str = "en-US") -> dict[str, Any]:
    return {"id": name, "name": name.title(), "language": language, "gender": gender}


def meanings(speech: SpeechCard) -> dict[str, str]:
    found = {name: speech.find_voice(name) for name in NAMES}
    return {name: meant.id for name, meant in found.items() if meant}


def test_one_voice_stands_for_all_of_openais_names() -> None:
    assert meanings(card(voice("anna", "female"))) == dict.fromkeys(NAMES, "anna")


def test_names_go_to_voices_of_their_gender_and_of_the_default_language() -> None:
    speech = card(
        voice("kyoko", "female", "ja"),
        voice("anna", "female", "en-GB"),
        voice("ben", "male"),
        voice("cora", "female"),
        default_voice="cora",
    )
    found = meanings(speech)
    assert found == {
        **{name: ("cora", "anna")[at % 2] for at, name in enumerate(OPENAI_VOICES["female"])},
        **dict.fromkeys(OPENAI_VOICES["male"], "ben"),
    }
    for voice_id in ("cora", "anna", "ben", "kyoko"):
        of_id = speech.find_voice(voice_id)
        assert of_id is not None
        assert speech.aliases(of_id) == [name for name, meant in found.items() if meant == voice_id]


def test_a_voice_of_the_same_name_takes_precedence() -> None:
    speech = card(voice("anna", "female"), voice("nova", "female"), voice("onyx", "male"))
    assert meanings(speech)["nova"] == "nova" and meanings(speech)["onyx"] == "onyx"
    assert "nova" not in speech.aliases(speech.voices[1])


def test_voices_without_a_gender() -> None:
    speech = card("first", "second", default_voice="second")
    assert [voice.id for voice in speech.voices] == ["first", "second"]
    assert meanings(speech)["alloy"] == meanings(speech)["ash"] == "second"
    assert set(meanings(speech).values()) == {"first", "second"}


def test_ids_names_and_case() -> None:
    speech = card(voice("af_heart"), voice("Heart"))
    found = [speech.find_voice(name) for name in ("af_heart", "AF_HEART", "heart", "Heart", "nobody", "")]
    assert [one and one.id for one in found] == ["af_heart", "af_heart", "Heart", "Heart", None, None]


def test_a_model_without_voices() -> None:
    speech = parse_speech({})
    assert (speech.voices, speech.default, speech.sample_rate, speech.max_characters) == ((), None, 24_000, 100_000)
    assert speech.find_voice("alloy") is None and not speech.follows_instructions


@pytest.mark.parametrize(
    "parameters",
    [
        {"voices": '["a", "a"]'},
        {"voices": '[{"name": "a"}]'},
        {"voices": '[{"id": ""}]'},
        {"voices": "[7]"},
        {"voices": "no"},
        {"voices": '["a"]', "default_voice": "b"},
        {"languages": '"en"'},
        {"sample_rate": "0"},
        {"sample_rate": "24k"},
        {"max_characters": "-1"},
    ],
    ids=str,
)
def test_invalid_parameters(parameters: dict[str, str]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        parse_speech(parameters)
