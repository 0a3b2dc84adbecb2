"""Platform settings: JSON, or a TOML file."""

import json
from pathlib import Path

import pytest

from gateway.settings import Settings

PLATFORMS = {
    "all": {},
    "open": {"keys": []},
    "own": {"keys": ["sk-own", "sk-other"], "models": ["hello", "org/served"]},
}


def test_no_key_is_shown_in_a_log() -> None:
    settings = Settings(platforms=PLATFORMS)  # type: ignore[arg-type]
    assert "sk-own" not in repr(settings) and "sk-own" not in settings.model_dump_json()


def test_the_setting_is_json_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITONIC_PLATFORMS", json.dumps(PLATFORMS))
    by_json = Settings()
    table = tmp_path / "platforms.toml"
    table.write_text('[all]\n[open]\nkeys = []\n[own]\nkeys = ["sk-own", "sk-other"]\n')
    monkeypatch.setenv("TRITONIC_PLATFORMS", str(table))
    by_file = Settings()
    assert by_json.platforms["own"].models == ["hello", "org/served"]
    assert by_json.platforms["own"].keys == by_file.platforms["own"].keys
    assert by_file.platforms["open"].keys == [] and by_file.platforms["all"].keys is None
    monkeypatch.delenv("TRITONIC_PLATFORMS")
    assert list(Settings().platforms) == ["tritonic"]


@pytest.mark.parametrize("invalid", ["{", "[]", "nowhere.toml", '{"a/b": {}}', '{"a": {"key": []}}', '{"a": 1}'])
def test_invalid_platform_settings_are_refused(invalid: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITONIC_PLATFORMS", invalid)
    with pytest.raises(ValueError, match="platforms"):
        Settings()
