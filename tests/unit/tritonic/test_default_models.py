"""`up` builds missing default models, rebuilds outdated ones, and keeps those of the user."""

import dataclasses
import io
import json
import sys
import threading
from pathlib import Path

import pytest
from rich.console import Console

from builders import manifest
from builders.build import resolve_source
from tritonic import default_models, disk_space, up
from tritonic.default_models import DefaultModel

BUILT = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text('anew')"


class Setting:
    """A repository with one default model that was built, and a build that writes to a file, or fails."""

    def __init__(self, folder: Path, default: DefaultModel) -> None:
        self.repository, self.mark = folder / "repository", folder / "built"
        assert default.recipe
        self.recipe = default.recipe
        self.folder = self.repository / default.name
        self.default = dataclasses.replace(default, command=[sys.executable, "-c", BUILT, str(self.mark)])

    def install(self, **changed: object) -> None:
        self.folder.mkdir(parents=True)
        (self.folder / "config.pbtxt").write_text("name: 'x'")
        recipe = self.recipe.model_copy(update=changed)
        manifest.write(self.folder, recipe, resolve_source(self.recipe).digest(), {}, 1.0)

    def change(self, **changed: object) -> None:
        path = self.folder / manifest.FILE_NAME
        path.write_text(json.dumps(json.loads(path.read_text()) | changed))

    def provide(self) -> str:
        output = io.StringIO()
        up._ensure_model(self.repository, self.default, Console(file=output, width=1000), threading.Event())
        return output.getvalue()


@pytest.fixture(params=range(6), ids=["chat", "embedding", "image", "video", "transcription", "speech"])
def setting(tmp_path: Path, request: pytest.FixtureRequest) -> Setting:
    return Setting(tmp_path, default_models.default_models(tmp_path / "repository")[request.param])


def fail(setting: Setting) -> None:
    setting.default = dataclasses.replace(setting.default, command=[sys.executable, "-c", "raise SystemExit(1)"])


def test_a_missing_model_is_built(setting: Setting) -> None:
    setting.repository.mkdir()
    assert "Building the default model" in setting.provide() and setting.mark.exists()
    fail(setting)
    with pytest.raises(up.UpError, match="could not be built"):
        setting.provide()


def test_a_model_without_one_of_its_parts_is_rebuilt(setting: Setting) -> None:
    setting.install()
    setting.change(parts={"a-part": {}})
    assert "Building the default model" in setting.provide() and setting.mark.exists()


def test_a_current_model_is_not_rebuilt(setting: Setting) -> None:
    setting.install()
    assert setting.provide() == "" and not setting.mark.exists()


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"format": 1, "fingerprint": "0"}, "was built by another version of Tritonic, and is rebuilt"),
        ({"fingerprint": "0"}, "was built from another recipe or other weights, and is rebuilt"),
    ],
)
def test_models_of_earlier_versions_are_rebuilt(setting: Setting, changed: dict[str, object], reason: str) -> None:
    setting.install()
    setting.change(**changed)
    assert reason in setting.provide() and setting.mark.exists()


def test_a_model_of_an_earlier_recipe_is_rebuilt(setting: Setting) -> None:
    setting.install(tool_call_parser="another")
    assert "another recipe" in setting.provide() and setting.mark.exists()


def test_builds_of_other_formats_are_recognized(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    setting.install()
    monkeypatch.setattr(manifest, "FORMAT_VERSION", manifest.FORMAT_VERSION + 1)
    assert "another version" in setting.provide() and setting.mark.exists()


def test_an_old_model_is_kept_if_its_rebuild_fails(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    setting.install()
    setting.change(fingerprint="0")
    fail(setting)
    assert "The old model stays in use." in setting.provide()
    monkeypatch.setattr(disk_space, "free_bytes", lambda path: 0)
    assert "MB left" in setting.provide()
    assert (setting.folder / "config.pbtxt").is_file()


def test_a_model_with_own_options_is_kept(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    setting.install(context_length=64)
    assert setting.provide() == ""
    monkeypatch.setattr(manifest, "FORMAT_VERSION", manifest.FORMAT_VERSION + 1)
    output = setting.provide()
    assert "built with other options and is not replaced" in output and "--force` rebuilds it" in output
    assert not setting.mark.exists()


def test_an_edited_model_is_kept(setting: Setting) -> None:
    setting.install()
    setting.change(format=1, fingerprint="0")
    (setting.folder / "config.pbtxt").write_text("name: 'x' # mine")
    assert "is not replaced" in setting.provide() and not setting.mark.exists()


@pytest.mark.parametrize("text", [None, "not JSON", "[]", "{}"])
def test_foreign_models_are_left_alone(setting: Setting, text: str | None) -> None:
    setting.install()
    (setting.folder / manifest.FILE_NAME).unlink()
    if text is not None:
        (setting.folder / manifest.FILE_NAME).write_text(text)
    setting.provide()
    assert not setting.mark.exists()


def test_the_default_models_are_known_without_their_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITONIC_CACHE", str(tmp_path / "none"))
    assert [one.why_outdated(tmp_path) for one in default_models.default_models(tmp_path)] == [None] * 6
    assert not (tmp_path / "none").exists()
