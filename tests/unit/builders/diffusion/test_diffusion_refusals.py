"""Pipelines and recipes that are refused before the export, and the files of a source that are used."""

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import psutil
import pytest

from backends.diffusion.schedulers.registry import SCHEDULER_NAMES
from builders import manifest, recipe, tensorrt_plan
from builders.build import build, resolve_source
from builders.diffusion import pipeline, sources, tensorrt, triton_config
from builders.diffusion.networks import load_part, weight_variant
from builders.diffusion.parts import pipeline_parts
from builders.errors import NotEnoughSpace, RecipeError, SourceUnavailable, UnsupportedModel
from builders.progress import NullProgress
from tests.unit.builders.diffusion.tiny_image_recipe import image_recipe

Pipes = Callable[[str], Path]


def change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_bytes()) | values))


@pytest.mark.parametrize(
    ("file", "values", "sentence"),
    [
        ("model_index.json", {"_class_name": "KandinskyPipeline"}, "KandinskyPipeline cannot be built.*FluxPipeline"),
        ("model_index.json", {"vae": ["diffusers", "AutoencoderTiny"]}, "vae of this pipeline is AutoencoderTiny"),
        (
            "model_index.json",
            {"scheduler": ["diffusers", "HeunDiscreteScheduler"]},
            "scheduler.* is HeunDiscr.*DDIM",
        ),
        (
            "model_index.json",
            {"scheduler": ["evil", "DDIMScheduler"]},
            "scheduler .* is of 'evil'.* code .* is not run",
        ),
        ("model_index.json", {"tokenizer": ["evil", "CLIPTokenizer"]}, "tokenizer .* is of 'evil'"),
        ("unet/config.json", {"in_channels": 9}, "takes 9 channels where the VAE has 4"),
        ("unet/config.json", {"addition_embed_type": "image"}, "of the kind 'image'"),
        ("unet/config.json", {"encoder_hid_dim_type": "text_proj"}, "encoder_hid_dim_type"),
    ],
)
def test_unsupported_models_are_refused_with_a_message(
    copy: Path, file: str, values: dict[str, Any], sentence: str
) -> None:
    change(copy / file, **values)
    with pytest.raises(UnsupportedModel, match=sentence):
        build(image_recipe(copy), copy.parent / "repository")
    assert not (copy.parent / "repository").exists()


def test_folders_that_are_not_pipelines_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable, match=r"no model_index\.json"):
        build(image_recipe(tmp_path), tmp_path / "repository")
    with pytest.raises(SourceUnavailable, match="no folder '/nowhere'"):
        build(image_recipe(Path("/nowhere")), tmp_path / "repository")
    with pytest.raises(RecipeError, match=r"no packaged pipeline 'x'\. Known: shapes"):
        sources.resolve("packaged:x")


@pytest.mark.parametrize(
    ("values", "error", "sentence"),
    [
        ({"precision": "int8"}, UnsupportedModel, "For onnx, image models are built in fp32, not int8"),
        ({"target": "vllm"}, UnsupportedModel, "'vllm' is not supported for image models"),
        ({"context_length": 77}, RecipeError, "context_length is not an option of image models"),
        ({"pictures": {"sizes": [[64, 60]]}}, RecipeError, "64x60 does not suit this model.*multiples of 16"),
        ({"pictures": {"sizes": [[64, 64]], "default_size": [32, 32]}}, RecipeError, "32x32 is not one of the sizes"),
    ],
)
def test_unsupported_recipe_values_are_refused(
    pipes: Pipes, tmp_path: Path, values: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        build(image_recipe(pipes("sd"), **values), tmp_path / "repository")
    assert not (tmp_path / "repository").exists()


def test_image_options_belong_to_image_models() -> None:
    with pytest.raises(RecipeError, match="pictures is an option of the family diffusion, not of llm"):
        recipe.make(name="a", source="b", pictures={"default_steps": 3})
    text = recipe.make(name="a", source="b")
    identity = manifest.fingerprint(text, "digest")
    assert identity == manifest.fingerprint(
        text.model_copy(update={"pictures": recipe.ImageOptions(max_steps=9)}), "digest"
    )
    draws = recipe.make(name="a", source="b", family="diffusion")
    other = draws.model_copy(update={"pictures": recipe.ImageOptions(max_steps=9)})
    assert manifest.fingerprint(draws, "digest") != manifest.fingerprint(other, "digest")


def test_too_little_memory_is_detected_before_the_build(
    pipes: Pipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = psutil.virtual_memory()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory._replace(total=10_000))
    with pytest.raises(NotEnoughSpace, match="of memory, and this machine has 0 GB"):
        build(image_recipe(pipes("sd")), tmp_path / "repository")


def test_sizes_are_the_recipes_or_around_the_native_size(pipes: Pipes) -> None:
    sd3 = pipeline.read(pipes("sd3"))
    around = triton_config.size_options(image_recipe(sd3.folder), sd3)
    assert around == {"size_multiple": 8, "min_size": 8, "max_size": 32, "default_size": (16, 16)}
    named = triton_config.size_options(image_recipe(sd3.folder, pictures={"sizes": [[16, 8], [8, 16]]}), sd3)
    assert named == {"sizes": ((16, 8), (8, 16)), "default_size": (16, 8), "size_multiple": 8}


def test_only_needed_files_are_fetched_and_hashed(copy: Path) -> None:
    index = json.loads((copy / "model_index.json").read_bytes()) | {"safety_checker": ["x", "SafetyChecker"]}
    names = [
        "model_index.json",
        "README.md",
        "v1-5-pruned.safetensors",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/diffusion_pytorch_model.bin",
        "vae/diffusion_pytorch_model.fp16.safetensors",
        "vae/diffusion_pytorch_model.non_ema.safetensors",
        "text_encoder/model-00001-of-00002.safetensors",
        "text_encoder/model.safetensors.index.json",
        "text_encoder_2/model.safetensors",
        "tokenizer/merges.txt",
        "safety_checker/model.safetensors",
    ]
    assert sources.needed_files(index, names) == [
        "model_index.json",
        "text_encoder/model-00001-of-00002.safetensors",
        "text_encoder/model.safetensors.index.json",
        "tokenizer/merges.txt",
        "unet/diffusion_pytorch_model.safetensors",
        "unet/config.json",
        "vae/diffusion_pytorch_model.fp16.safetensors",
    ]
    source = resolve_source(image_recipe(copy))
    before = source.digest()
    (copy / "README.md").write_text("words")
    assert source.digest() == before
    change(copy / "scheduler" / "scheduler_config.json", steps_offset=0)
    assert source.digest() != before


def test_fp16_weights_are_used_if_there_are_no_others(copy: Path) -> None:
    assert weight_variant(copy / "unet") is None
    before = resolve_source(image_recipe(copy)).num_parameters()
    for name in ("unet", "vae"):
        plain = copy / name / "diffusion_pytorch_model.safetensors"
        plain.rename(plain.with_name("diffusion_pytorch_model.fp16.safetensors"))
    assert weight_variant(copy / "unet") == "fp16"
    assert resolve_source(image_recipe(copy)).num_parameters() == before
    read = pipeline.read(copy)
    for part in pipeline_parts(read):
        load_part(read, part)


def test_tensorrt_is_refused_without_a_gpu_or_tensorrt(
    pipes: Pipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = image_recipe(pipes("sd"), target="tensorrt", precision="fp16")
    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter(()))
    with pytest.raises(UnsupportedModel, match="this machine has none"):
        build(chosen, tmp_path / "repository")
    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter([Path("/dev/nvidia0")]))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UnsupportedModel, match="the Python package tensorrt or the command trtexec"):
        tensorrt_plan.check()


def test_plans_accept_the_sizes_of_the_recipe(pipes: Pipes) -> None:
    read = pipeline.read(pipes("flux"))
    chosen = image_recipe(read.folder, target="tensorrt", precision="fp16", pictures={"min_size": 8, "max_size": 64})
    sizes = tensorrt.plan_sizes(chosen, read)
    denoiser = {part.name: part for part in pipeline_parts(read)}["denoiser"]
    command = tensorrt_plan.trtexec_command(Path("a.onnx"), Path("a.plan"), sizes.profile(denoiser))
    assert "--stronglyTyped" in command and "--fp16" not in command
    (least,) = [argument for argument in command if argument.startswith("--minShapes=")]
    (most,) = [argument for argument in command if argument.startswith("--maxShapes=")]
    assert "hidden_states:1x4x16," in least and "txt_ids:1x24x3" in least and "timestep:1," in least
    assert "hidden_states:16x256x16," in most and "img_ids:16x256x3," in most


def test_the_hub_is_queried_once_and_only_needed_files_are_downloaded(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    names = [str(path.relative_to(copy)) for path in copy.rglob("*") if path.is_file()]
    calls: list[Any] = []

    class Listed:
        sha = "0123abc"
        siblings = tuple(type("File", (), {"rfilename": name}) for name in [*names, "unet/model.bin", "README.md"])

    class Counted:
        parameter_count: ClassVar = {"F32": 40, "I64": 2}

    def model_info(self: Any, id: str, **more: Any) -> type[Listed]:
        calls.append(id)
        return Listed

    def snapshot_download(id: str, *, revision: str, allow_patterns: list[str]) -> str:
        calls.append((revision, sorted(allow_patterns)))
        return str(copy)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    monkeypatch.setattr(huggingface_hub.HfApi, "parse_safetensors_file_metadata", lambda *_, **__: Counted)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda id, name, revision: str(copy / name))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    hub = sources.resolve("nobody/nothing-at-all")
    assert hub.digest() == "hf:nobody/nothing-at-all@0123abc"
    assert hub.config()["_class_name"] == "StableDiffusionPipeline"
    assert hub.num_parameters() == 3 * 42
    assert hub.fetch(copy, NullProgress()).folder == copy
    assert calls == ["nobody/nothing-at-all", ("0123abc", sorted(names))]


def test_sizes_beyond_the_models_positions_are_refused(pipes: Pipes) -> None:
    read = pipeline.read(pipes("sd3"))
    with pytest.raises(RecipeError, match="more than this model has positions for: 48"):
        triton_config.size_options(image_recipe(read.folder, pictures={"max_size": 64}), read)


def test_the_backend_has_every_supported_scheduler() -> None:
    assert set(pipeline.SCHEDULERS) == set(SCHEDULER_NAMES)
