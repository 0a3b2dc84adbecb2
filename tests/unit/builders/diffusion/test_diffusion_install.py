"""The installed models of a pipeline, and when they are built again."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import numpy_helper
from tokenizers import Tokenizer
from transformers import CLIPTokenizer, T5Tokenizer

from builders import config_pbtxt, manifest, repository
from builders.build import BuildResult, build
from builders.diffusion import builder, pipeline, pipeline_json
from builders.diffusion.parts import pipeline_parts
from builders.diffusion.verify import verify_part
from builders.errors import RepositoryBusy, VerificationFailed
from tests.fakes.pipelines import T5_TOKENS, TOKENS
from tests.unit.builders.diffusion.family_checks import check_built_family
from tests.unit.builders.diffusion.tiny_image_recipe import image_recipe

pytestmark = pytest.mark.timeout(1800)  # the export of a pipeline takes half a minute on an idle core

Pipes = Callable[[str], Path]


def test_stable_diffusion_is_built_with_all_parts(built: BuildResult) -> None:
    check_built_family("sd", built)


def test_config_pbtxt_of_the_pipeline_declares_its_inputs_and_limits(built: BuildResult) -> None:
    config = config_pbtxt.parse((built.folder / "config.pbtxt").read_text())
    parameters = {key: value.string_value for key, value in config.parameters.items()}
    assert (config.name, config.backend, config.max_batch_size) == ("tiny", "diffusion", 0)
    assert config.model_transaction_policy.decoupled
    assert json.loads(parameters["operations"]) == ["generate_image", "edit_image"]
    assert (parameters["signature"], parameters["modalities"]) == ("image", '["text", "image"]')
    assert (parameters["size_multiple"], parameters["default_size"]) == ("16", "[64, 64]")
    assert (parameters["min_size"], parameters["max_size"]) == ("32", "128")
    assert (parameters["default_steps"], parameters["max_steps"], parameters["default_guidance"]) == (
        "30",
        "150",
        "7.5",
    )
    assert (parameters["max_images"], parameters["max_rows"]) == ("10", "8")
    assert [tensor.name for tensor in config.input if not tensor.optional] == ["prompt"]
    assert [tensor.name for tensor in config.output] == ["progress", "image", "seed", "index", "partial"]
    files = {str(path.relative_to(built.folder)) for path in built.folder.rglob("*") if path.is_file()}
    assert files == {"config.pbtxt", "BUILD.json", "1/pipeline.json", "1/tokenizer/tokenizer.json"}


def test_parts_are_batched_and_name_their_pipeline(built: BuildResult) -> None:
    config = config_pbtxt.parse((built.folder.parent / "tiny-denoiser" / "config.pbtxt").read_text())
    assert (config.name, config.backend, config.max_batch_size) == ("tiny-denoiser", "onnxruntime", 16)
    assert config.HasField("dynamic_batching")
    assert not config.model_transaction_policy.decoupled
    assert config.parameters["component"].string_value == "tiny"
    inputs = {tensor.name: tensor for tensor in config.input}
    assert {name: list(tensor.dims) for name, tensor in inputs.items()} == {
        "sample": [4, -1, -1],
        "timestep": [1],
        "encoder_hidden_states": [-1, 32],
    }
    assert inputs["timestep"].HasField("reshape") and list(inputs["timestep"].reshape.shape) == []
    assert not inputs["sample"].HasField("reshape")
    assert [(tensor.name, list(tensor.dims)) for tensor in config.output] == [("noise_pred", [4, -1, -1])]
    encoder = config_pbtxt.parse((built.folder.parent / "tiny-text-encoder" / "config.pbtxt").read_text())
    assert [(tensor.name, list(tensor.dims)) for tensor in encoder.input] == [("input_ids", [TOKENS])]
    for part in ("text-encoder", "denoiser", "vae-encoder", "vae-decoder"):
        folder = built.folder.parent / f"tiny-{part}"
        written = config_pbtxt.parse((folder / "config.pbtxt").read_text())
        graph = onnx.load(str(folder / "1" / "model.onnx"), load_external_data=False).graph
        assert [tensor.name for tensor in written.input] == [value.name for value in graph.input]
        assert [tensor.name for tensor in written.output] == [value.name for value in graph.output]
        assert all(value.type.tensor_type.shape.dim[0].dim_param for value in (*graph.input, *graph.output))


def test_the_description_has_the_settings_of_the_folder(pipes: Pipes) -> None:
    sdxl = pipeline_json.describe(pipeline.read(pipes("sdxl")), "x")
    assert sdxl["components"]["text_encoders"] == ["x-text-encoder", "x-text-encoder-2"]
    assert (sdxl["scheduler"]["class"], sdxl["scheduler"]["beta_schedule"]) == (
        "EulerDiscreteScheduler",
        "scaled_linear",
    )
    assert [entry["outputs"] for entry in sdxl["tokenizers"]] == [["hidden_states"], ["hidden_states", "pooled"]]
    assert (sdxl["guidance"], sdxl["force_zeros_for_empty_prompt"], sdxl["size_multiple"]) == (
        "classifier-free",
        True,
        8,
    )
    assert sdxl["vae"] == {"scaling_factor": 0.18215, "shift_factor": 0.0, "factor": 2, "channels": 4}
    guidance = {
        kind: pipeline_json.describe(pipeline.read(pipes(kind)), "x")["guidance"] for kind in ("flux", "flux-dev")
    }
    assert guidance == {"flux": "none", "flux-dev": "embedded"}
    without_t5 = pipeline_json.describe(pipeline.read(pipes("sd3.5")), "x")
    assert len(without_t5["tokenizers"]) == 2
    assert (without_t5["t5_tokens"], without_t5["joint_attention_dim"]) == (256, 48)


TEXTS = ("", "a red cat", "A  RED\ncat, 2 hats", "naïve 東京 👩‍👩‍👧", "red cat " * 40)


@pytest.mark.parametrize(
    ("kind", "name", "tokenizer", "tokens"),
    [
        ("sd", "tokenizer", CLIPTokenizer, TOKENS),
        ("sdxl", "tokenizer_2", CLIPTokenizer, TOKENS),
        ("sd3", "tokenizer_3", T5Tokenizer, T5_TOKENS),
    ],
)
def test_tokenizers_truncate_and_pad_as_the_pipelines_do(
    pipes: Pipes, tmp_path: Path, kind: str, name: str, tokenizer: type, tokens: int
) -> None:
    read = pipeline.read(pipes(kind))
    entries = {entry["folder"]: entry for entry in pipeline_json.write(read, "x", tmp_path)["tokenizers"]}
    installed = Tokenizer.from_file(str(tmp_path / name / "tokenizer.json"))
    source_tokenizer = tokenizer.from_pretrained(read.folder / name)  # type: ignore[attr-defined]
    for text in TEXTS:
        expected = source_tokenizer(text, padding="max_length", max_length=tokens, truncation=True).input_ids
        assert installed.encode(text).ids == expected
    assert entries[name]["max_length"] == tokens
    assert entries[name]["pad_id"] == source_tokenizer.pad_token_id == installed.encode("").ids[-1]


def test_building_twice_does_nothing(built: BuildResult, pipes: Pipes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder.DiffusionBuilder, "build", None)
    again = build(image_recipe(pipes("sd")), built.folder.parent)
    assert not again.is_new
    assert again.metrics == built.metrics


def test_the_manifest_covers_all_models(built: BuildResult, pipes: Pipes, tmp_path: Path) -> None:
    into = Path(shutil.copytree(built.folder.parent, tmp_path / "repository"))
    record = manifest.read(into / "tiny")
    assert record is not None and record["versions"]["diffusers"]
    assert manifest.is_current(into / "tiny", record["fingerprint"])
    assert set(manifest.part_names(into / "tiny")) == {
        "tiny-text-encoder",
        "tiny-denoiser",
        "tiny-vae-encoder",
        "tiny-vae-decoder",
    }
    (into / "tiny-vae-decoder" / "1" / "model.onnx").unlink()
    assert not manifest.is_current(into / "tiny", record["fingerprint"])


def test_models_that_tritonic_did_not_build_are_kept(
    pipes: Pipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builder.DiffusionBuilder, "build", None)
    mine = tmp_path / "repository" / "tiny-denoiser" / "config.pbtxt"
    mine.parent.mkdir(parents=True)
    mine.write_text('backend: "python"')
    with pytest.raises(RepositoryBusy, match="tiny-denoiser exists and is no part"):
        build(image_recipe(pipes("sd")), tmp_path / "repository")
    assert mine.read_text() == 'backend: "python"'


@pytest.mark.parametrize("name", ["tiny-denoiser", "tiny"])
def test_models_that_are_installed_during_a_build_are_kept(
    pipes: Pipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    into = tmp_path / "repository"
    mine = into / name / "config.pbtxt"
    parts = [f"tiny-{part}" for part in ("text-encoder", "denoiser", "vae-encoder", "vae-decoder")]

    def make(self: object, recipe: object, source: object, folder: Path, scratch: Path, progress: object) -> dict:
        for model in (folder, *(repository.parts_folder(folder) / part for part in parts)):
            (model / "1").mkdir(parents=True)
            (model / "config.pbtxt").write_text('backend: "diffusion"')
        mine.parent.mkdir(parents=True)
        mine.write_text('backend: "python"')
        return {}

    monkeypatch.setattr(builder.DiffusionBuilder, "build", make)
    with pytest.raises(RepositoryBusy, match=f"{name} exists and "):
        build(image_recipe(pipes("sd")), into)
    assert mine.read_text() == 'backend: "python"'
    assert [path.name for path in into.iterdir()] == [name], "models that were installed before it are removed again"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    shutil.rmtree(mine.parent)
    mine = tmp_path / "elsewhere" / "config.pbtxt"
    for _ in range(2):  # models that were built here are replaced
        assert build(image_recipe(pipes("sd")), into).is_new
        assert sorted(path.name for path in into.iterdir()) == sorted(["tiny", *parts])
        (into / "tiny-denoiser" / "config.pbtxt").unlink()
        shutil.rmtree(mine.parent)


def test_a_wrong_engine_is_refused_with_figures(built: BuildResult, pipes: Pipes, tmp_path: Path) -> None:
    read = pipeline.read(pipes("sd"))
    (denoiser,) = [part for part in pipeline_parts(read) if part.name == "denoiser"]
    model = built.folder.parent / "tiny-denoiser" / "1" / "model.onnx"
    graph = onnx.load(str(model))
    weight = max(graph.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * 1.3, weight.name))
    onnx.save(graph, str(tmp_path / "model.onnx"))
    with pytest.raises(VerificationFailed, match=r"denoiser does not answer as its source does.*Largest difference \d"):
        verify_part(read, denoiser, tmp_path / "model.onnx")
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(VerificationFailed, match="onnxruntime cannot run the exported denoiser"):
        verify_part(read, denoiser, tmp_path / "model.onnx")
