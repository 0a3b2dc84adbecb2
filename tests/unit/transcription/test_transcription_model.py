"""What a transcription model says about itself: config.pbtxt and model.json."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from backends.transcription.loading import choose_positions, load_frontend, restrict_languages
from backends.transcription.model_config import read_model_config
from backends.transcription.options import Options, read_options
from tests.unit.transcription.scripted_networks import CONFIG, LANGUAGES


def parameters(**values: str) -> dict[str, dict[str, str]]:
    return {name: {"string_value": value} for name, value in values.items()}


def test_parameters() -> None:
    assert read_options({}) == Options()
    given = parameters(
        languages='["en"]', tasks='["transcribe"]', max_seconds="60", max_rows="4", threads="2", other="x"
    )
    assert read_options(given) == Options(("en",), ("transcribe",), 60, 4, 256, 7200, 2)
    assert read_options(given).num_threads == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"engine": "torch"},
        {"sample_rate": "8000"},
        {"tasks": '["sing"]'},
        {"languages": '"en"'},
        {"max_rows": "0"},
        {"max_seconds": "no"},
    ],
)
def test_wrong_parameters_are_named(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        read_options(parameters(**wrong))


def test_languages_may_be_restricted() -> None:
    assert restrict_languages(CONFIG, Options()) == CONFIG
    assert restrict_languages(CONFIG, Options(languages=("de", "fr"))).languages == {"de": LANGUAGES["de"]}
    english = replace(CONFIG, languages={})
    assert restrict_languages(english, Options(languages=("en",))) == english
    for config, languages in ((CONFIG, ("fr",)), (english, ("de",))):
        with pytest.raises(ValueError, match="languages"):
            restrict_languages(config, Options(languages=languages))


def document(**changes: Any) -> dict[str, Any]:
    return asdict(CONFIG) | {"multilingual": True, "precision": "fp32", "alignment_heads": [[0, 0]]} | changes


def test_the_file_of_a_model(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"model\.json"):
        read_model_config(tmp_path)
    path = tmp_path / "model.json"
    path.write_text(json.dumps(document()))
    assert read_model_config(tmp_path) == CONFIG
    path.write_text(json.dumps(document(multilingual=False)))
    assert read_model_config(tmp_path).languages == {}
    for wrong in ("{", json.dumps(document(tokens={})), json.dumps(document(num_mels="x")), "[]"):
        path.write_text(wrong)
        with pytest.raises(ValueError, match=r"model\.json"):
            read_model_config(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text(json.dumps(document()))
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json is missing"):
        load_frontend(tmp_path, {})


def test_short_windows_are_read_as_half_of_thirty_seconds() -> None:
    assert [choose_positions(CONFIG, seconds) for seconds in (0.1, 13, 13.1, 30)] == [750, 750, 1500, 1500]
