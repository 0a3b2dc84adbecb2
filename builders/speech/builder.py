"""Build a model that speaks: fetch, copy or convert its networks, verify."""

import importlib.util
import json
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from builders import config_pbtxt
from builders.errors import ExportFailed, MissingDependency, RecipeError, UnsupportedModel
from builders.family import Builder
from builders.progress import Progress
from builders.recipe import Recipe
from builders.sources import Source
from builders.speech import sources
from builders.speech.family import SpeechRecipe
from builders.speech.layout import SAMPLE_RATE, SpeechLayout, VoiceFile, read_layout, read_vocabulary
from builders.speech.verify import hibari_speaker, kokoro_speaker, verify

NETWORK_FILE = "model.onnx"
PRECISIONS = ("int8", "fp32")
DEFAULT_VOICES = ("heart", "af_heart")
UNSUPPORTED_OPTIONS = ("tolerance", "tool_call_parser", "reasoning_parser", "quantization", "context_length")


class SpeechBuilder(Builder):
    """Builds models that speak."""

    def resolve(self, source: str, revision: str | None) -> Source:
        """Return the source that a recipe names. Raises RecipeError, SourceUnavailable."""
        return sources.resolve(source, revision)

    def check(self, recipe: Recipe, source: Source) -> int:
        """Return the bytes of disk that a build needs.

        Raises UnsupportedModel, RecipeError, MissingDependency, SourceUnavailable.
        """
        assert isinstance(source, sources.SpeechSource)
        if recipe.target != "onnx":
            raise UnsupportedModel(f"The target {recipe.target!r} is not built yet; the target that is: onnx.")
        if recipe.precision not in PRECISIONS:
            raise UnsupportedModel(
                f"Models that speak are built in {' and '.join(PRECISIONS)}, not {recipe.precision}."
            )
        for name in UNSUPPORTED_OPTIONS:
            if getattr(recipe, name) is not None:
                raise RecipeError(f"{name} is not an option of models that speak.")
        for package in ("hibari", "onnx", "onnxruntime"):
            if importlib.util.find_spec(package) is None:
                raise MissingDependency("hibari-tts" if package == "hibari" else package)
        layout = source.layout()
        if layout.family == "hibari" and recipe.precision != "int8":
            raise UnsupportedModel(f"The networks of hibari are published in int8; {recipe.precision} is not built.")
        if layout.family == "kokoro" and recipe.precision == "int8" and "int8" not in layout.networks:
            raise UnsupportedModel("This source has no network in int8. Build it in fp32: --precision fp32.")
        return source.scratch_bytes() + 5 * source.size_bytes() + 64_000_000

    def build(self, recipe: Recipe, source: Source, folder: Path, scratch: Path, progress: Progress) -> dict[str, Any]:
        """Build the networks, voices and `config.pbtxt` into `folder`; return the figures of the verification."""
        assert isinstance(recipe, SpeechRecipe)
        progress.begin("fetch", recipe.source)
        checkpoint = source.fetch(scratch, progress).folder
        layout = read_layout(sources.folder_names(checkpoint), recipe.source)
        default = _default_voice(recipe, layout)

        progress.begin("export", f"{recipe.precision} for {recipe.target}")
        engine = folder / "1"
        engine.mkdir()
        files = {voice.id: f"{voice.id}{Path(voice.file).suffix}" for voice in layout.voices}
        for voice in layout.voices:
            shutil.copyfile(checkpoint / voice.file, engine / files[voice.id])
        is_copy = layout.family == "hibari" or recipe.precision in layout.networks
        original = checkpoint / layout.files(recipe.precision)[0]
        if layout.family == "kokoro":
            _write_network(original, engine / NETWORK_FILE, is_copy=is_copy)
        vocabulary = read_vocabulary(checkpoint, layout)
        model = {
            "family": layout.family,
            "sample_rate": SAMPLE_RATE,
            "voices": files,
            "vocabulary": vocabulary,
        }
        (engine / "model.json").write_text(json.dumps(model, ensure_ascii=False, indent=1), encoding="utf-8")

        progress.begin("verify", "against the source")
        paths = {voice.id: checkpoint / voice.file for voice in layout.voices}
        if layout.family == "hibari":
            ours, theirs = hibari_speaker(lambda voice: engine / files[voice]), hibari_speaker(paths.__getitem__)
        else:
            ours = kokoro_speaker(engine / NETWORK_FILE, lambda voice: engine / files[voice])
            theirs = kokoro_speaker(original, paths.__getitem__)
        ids = [default.id, *(voice.id for voice in layout.voices if voice != default)]
        figures = verify(ours, theirs, ids, vocabulary, SAMPLE_RATE, is_copy=is_copy, progress=progress)
        config = _config(recipe, layout, default)
        (folder / "config.pbtxt").write_text(config, encoding="utf-8", newline="")
        return asdict(figures)


def _write_network(source: Path, target: Path, *, is_copy: bool) -> None:
    if is_copy:
        shutil.copyfile(source, target)
        return
    from builders.speech.dequantize import dequantize

    try:
        dequantize(source, target)
    except (ValueError, KeyError) as error:
        raise ExportFailed(f"{source.name} cannot be converted to fp32: {error}") from error


def _default_voice(recipe: SpeechRecipe, layout: SpeechLayout) -> VoiceFile:
    by_id = {voice.id: voice for voice in layout.voices}
    if recipe.default_voice is not None and recipe.default_voice not in by_id:
        raise RecipeError(f"default_voice is {recipe.default_voice!r}; the voices are {', '.join(by_id)}.")
    wanted = [recipe.default_voice] if recipe.default_voice else DEFAULT_VOICES
    return next((by_id[id] for id in wanted if id in by_id), layout.voices[0])


def _config(recipe: SpeechRecipe, layout: SpeechLayout, default: VoiceFile) -> str:
    owner = recipe.source.split("/")[0] if recipe.source.count("/") == 1 and recipe.source[0] not in "./~" else "local"
    voices = [
        {"id": voice.id, "name": voice.name, "language": voice.language, "gender": voice.gender}
        for voice in layout.voices
    ]
    return config_pbtxt.render(
        recipe.name,
        "speech",
        config_pbtxt.SPEECH_INPUTS,
        config_pbtxt.SPEECH_OUTPUTS,
        {
            "served_name": recipe.served_name or recipe.name,
            "operations": ["speak"],
            "signature": "speech",
            "voices": voices,
            "default_voice": default.id,
            "languages": list(dict.fromkeys(voice.language for voice in layout.voices)),
            "sample_rate": SAMPLE_RATE,
            "max_characters": recipe.max_characters,
            "follows_instructions": False,
            "phonemizer": recipe.phonemizer,
            "owned_by": recipe.owned_by or owner,
            "created": int(time.time()),
            "precision": recipe.precision,
            "max_rows": recipe.max_rows,
            "max_waiting": recipe.max_waiting,
            "threads": recipe.threads,
        },
        decoupled=True,
    )
