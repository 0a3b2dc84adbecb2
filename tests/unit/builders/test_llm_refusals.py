"""Models, targets and machines that are refused before the build starts."""

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from builders.build import build
from builders.errors import (
    MissingDependency,
    NotEnoughSpace,
    RecipeError,
    RepositoryBusy,
    SourceUnavailable,
    UnsupportedModel,
)
from builders.llm import builder, export_step
from builders.recipe import Recipe

Recipes = Callable[..., Recipe]


def test_an_unsupported_architecture_is_refused_by_name_with_the_list(
    tiny: Path, tiny_recipe: Recipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builder.LLMBuilder, "build", None)
    folder = shutil.copytree(tiny, tmp_path / "bert")
    config = json.loads((folder / "config.json").read_bytes()) | {"architectures": ["BertForMaskedLM"]}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedModel, match="BertForMaskedLM") as refused:
        build(tiny_recipe(source=str(folder)), tmp_path / "repository")
    for known in ("LlamaForCausalLM", "Qwen2ForCausalLM", "Phi3ForCausalLM", "MistralForCausalLM", "Gemma3ForCausalLM"):
        assert known in str(refused.value)
    assert not (tmp_path / "repository").exists()


def test_whisper_is_no_text_generation_model(tiny_recipe: Recipes) -> None:
    with pytest.raises(UnsupportedModel, match="speech"):
        export_step.check(tiny_recipe(), {"architectures": ["WhisperForConditionalGeneration"]})


def test_fp16_is_refused_on_the_cpu(tiny_recipe: Recipes, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match="Choose fp32, int8 or int4"):
        build(tiny_recipe(precision="fp16"), tmp_path / "repository")


def test_architectures_for_cuda_only_are_refused_with_the_reason(tiny_recipe: Recipes) -> None:
    with pytest.raises(UnsupportedModel, match="PhiMoEForCausalLM for CUDA only"):
        export_step.check(tiny_recipe(), {"architectures": ["PhiMoEForCausalLM"]})


def test_a_compressed_shared_embedding_with_zero_points_is_refused(tiny_recipe: Recipes) -> None:
    int4 = tiny_recipe(precision="int4", quantization={"symmetric": False})
    tied = {"architectures": ["LlamaForCausalLM"], "tie_word_embeddings": True}
    with pytest.raises(UnsupportedModel, match="embedding_in_fp32"):
        export_step.check(int4, tied)
    export_step.check(int4, tied | {"tie_word_embeddings": False})
    export_step.check(tiny_recipe(precision="int4"), tied)


def test_more_context_than_the_checkpoint_has_is_refused(tiny_recipe: Recipes, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"257 .* 256"):
        build(tiny_recipe(context_length=257), tmp_path / "repository")


def test_too_little_disk_is_detected_before_the_build(
    tiny_recipe: Recipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builder.LLMBuilder, "build", None)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1_000_000))
    with pytest.raises(NotEnoughSpace, match=r"0\.1 GB .* 0\.0 GB are free"):
        build(tiny_recipe(), tmp_path / "repository")
    assert list(tmp_path.iterdir()) == []


def test_too_little_memory_is_detected_before_the_build(
    tiny_recipe: Recipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builder.LLMBuilder, "build", None)
    memory = psutil.virtual_memory()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory._replace(total=100_000))
    with pytest.raises(NotEnoughSpace, match="of memory, and this machine has 0 GB"):
        build(tiny_recipe(), tmp_path / "repository")


def test_a_model_that_tritonic_did_not_build_is_kept(tiny_recipe: Recipes, tmp_path: Path) -> None:
    mine = tmp_path / "repository" / "tiny" / "config.pbtxt"
    mine.parent.mkdir(parents=True)
    mine.write_text('backend: "python"')
    with pytest.raises(RepositoryBusy, match="--force"):
        build(tiny_recipe(), tmp_path / "repository")
    assert mine.read_text() == 'backend: "python"'


def test_a_missing_exporter_is_reported_with_the_package_to_install(
    tiny_recipe: Recipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=r"pip install 'tritonic\[build\]'"):
        build(tiny_recipe(), tmp_path / "repository")


def test_an_unknown_family_and_a_missing_folder_are_refused(tiny_recipe: Recipes, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no family 'poetry'"):
        build(tiny_recipe(family="poetry"), tmp_path / "repository")
    with pytest.raises(SourceUnavailable, match="no folder"):
        build(tiny_recipe(source="/nowhere"), tmp_path / "repository")
