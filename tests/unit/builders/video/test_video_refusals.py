"""Video pipelines and recipes that are refused before the export, and what a build is named and described by."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from builders import config_pbtxt, manifest, recipe
from builders.build import build, resolve_source
from builders.diffusion.triton_config import render_part
from builders.errors import BuildError, RecipeError, SourceUnavailable, UnsupportedModel
from builders.video import pipeline, pipeline_json, triton_config
from builders.video.builder import PACKAGED_PIPELINES, VideoBuilder
from builders.video.parts import pipeline_parts
from builders.video.plan_sizes import plan_sizes
from tests.fakes.tiny_wan import KINDS
from tests.unit.builders.video.tiny_video_recipe import video_recipe

Wan = Callable[[str], Path]


def change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_bytes()) | values))


def copy_configs(source: Path, folder: Path) -> Path:
    """Copy all of a pipeline but its weights."""
    return Path(shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.safetensors")))


@pytest.mark.parametrize(
    ("file", "values", "sentence"),
    [
        ("model_index.json", {"_class_name": "WanVACEPipeline"}, "WanVACEPipeline cannot be built.*WanPipeline"),
        ("model_index.json", {"boundary_ratio": 0.9}, "second transformer.* which is not built"),
        (
            "model_index.json",
            {"transformer_2": ["diffusers", "WanTransformer3DModel"]},
            "second transformer.* which is not built",
        ),
        ("model_index.json", {"vae": ["diffusers", "AutoencoderKL"]}, "vae of this pipeline is AutoencoderKL;"),
        ("model_index.json", {"vae": ["evil", "AutoencoderKLWan"]}, "vae .* is of 'evil'.* code .* is not run"),
        ("model_index.json", {"tokenizer": ["evil", "T5Tokenizer"]}, "tokenizer .* is of 'evil'"),
        ("model_index.json", {"scheduler": ["diffusers", "HeunDiscreteScheduler"]}, "scheduler.* is HeunDiscr.*DDIM"),
        ("transformer/config.json", {"patch_size": [1, 1, 1]}, r"patches of \(1, 1, 1\)"),
        ("transformer/config.json", {"in_channels": 36}, "takes 20 channels besides .*WanPipeline does not have"),
        ("vae/config.json", {"scale_factor_temporal": 8}, "joins 8 frames"),
    ],
)
def test_unsupported_models_are_refused_with_a_message(
    copy: Path, file: str, values: dict[str, Any], sentence: str
) -> None:
    change(copy / file, **values)
    with pytest.raises(UnsupportedModel, match=sentence):
        build(video_recipe(copy), copy.parent / "repository")
    assert not (copy.parent / "repository").exists()


@pytest.mark.parametrize(
    ("file", "values", "sentence"),
    [
        ("transformer/config.json", {"in_channels": 32}, "takes 16 channels of a picture; 20 are built"),
        ("transformer/config.json", {"pos_embed_seq_len": 514}, "a first and a last picture"),
        ("tokenizer/tokenizer_config.json", {"model_max_length": 226}, "gives 226 tokens.* wants 512"),
        ("model_index.json", {"image_encoder": [None, None]}, "the pipeline has no image_encoder"),
        ("model_index.json", {"image_encoder": ["transformers", "SiglipVisionModel"]}, "image_encoder .*SiglipVision"),
    ],
)
def test_unsupported_ways_to_get_a_picture_are_refused(
    wan: Wan, tmp_path: Path, file: str, values: dict[str, Any], sentence: str
) -> None:
    folder = copy_configs(wan("i2v"), tmp_path / "copy")
    assert pipeline.read(folder).image_conditioning == "channels"
    change(folder / file, **values)
    with pytest.raises(UnsupportedModel, match=sentence):
        pipeline.read(folder)


def test_an_unknown_preparation_of_pictures_is_refused(wan: Wan, tmp_path: Path) -> None:
    read = pipeline.read(copy_configs(wan("i2v"), tmp_path / "copy"))
    assert pipeline_json.describe(read, "tiny")["image_processor"]["size"] == 32
    change(read.folder / "image_processor" / "preprocessor_config.json", size={"height": 32, "width": 32})
    with pytest.raises(UnsupportedModel, match=r"CLIPImageProcessor.* sizes that are not built"):
        pipeline_json.describe(read, "tiny")


@pytest.mark.parametrize(
    ("values", "error", "sentence"),
    [
        ({"precision": "int8"}, UnsupportedModel, "For onnx, video models are built in fp32, not int8"),
        ({"target": "vllm"}, UnsupportedModel, "'vllm' is not supported for video models"),
        ({"context_length": 77}, RecipeError, "context_length is not an option of video models"),
        ({"videos": {"sizes": [[64, 40]]}}, RecipeError, "64x40 does not suit this model.*multiples of 16"),
        ({"videos": {"max_num_frames": 257}}, RecipeError, "positions for 64 latent frames"),
        ({"videos": {"max_num_frames": 82}}, RecipeError, "max_num_frames must be a multiple of 4 plus 1"),
        ({"videos": {"max_num_frames": 5}}, RecipeError, "max_num_frames is below default_num_frames"),
        ({"videos": {"default_fps": 30, "max_fps": 24}}, RecipeError, "max_fps is below default_fps"),
        ({"pictures": {"default_steps": 3}}, RecipeError, "pictures is an option of the family diffusion"),
    ],
)
def test_unsupported_recipe_values_are_refused(
    wan: Wan, tmp_path: Path, values: dict[str, Any], error: type[BuildError], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        build(video_recipe(wan("t2v"), **values), tmp_path / "repository")
    assert not (tmp_path / "repository").exists()


def test_a_vae_that_does_not_name_its_scale_is_refused(copy: Path) -> None:
    """diffusers would take that of Wan 2.1, whatever the VAE."""
    change(copy / "vae" / "config.json", latents_std=None)
    with pytest.raises(SourceUnavailable, match="no latents_mean and latents_std of 16 numbers"):
        pipeline.read(copy)


def test_sources_are_named_in_errors() -> None:
    with pytest.raises(RecipeError, match=r"no packaged pipeline 'x'\. Known: moving-shapes"):
        resolve_source(video_recipe(Path("packaged:x")))
    with pytest.raises(SourceUnavailable, match=r"no folder '/nowhere'.*Wan2\.1-T2V-1\.3B"):
        resolve_source(video_recipe(Path("/nowhere")))


def test_packaged_weights_that_are_missing_name_the_command_that_makes_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(PACKAGED_PIPELINES, "moving-shapes", tmp_path)
    with pytest.raises(SourceUnavailable, match=r"not in .*; `tritonic train moving-shapes` makes them\."):
        resolve_source(video_recipe(Path("packaged:moving-shapes")))


@pytest.mark.parametrize("kind", KINDS)
def test_the_names_of_the_parts_are_known_before_the_weights(kind: str, wan: Wan) -> None:
    """An installation reserves them, and `pipeline.json` must name no other."""
    source = resolve_source(video_recipe(wan(kind)))
    read = pipeline.read(wan(kind))
    names = VideoBuilder().sibling_models(video_recipe(wan(kind)), source)
    assert names == tuple(f"tiny-{part.name}" for part in pipeline_parts(read))
    components = pipeline_json.describe(read, "tiny")["components"]
    assert {*components.pop("text_encoders"), *components.values()} == set(names)


def test_only_files_that_decide_the_build_are_hashed(wan: Wan, copy: Path) -> None:
    source = resolve_source(video_recipe(copy))
    before = source.digest()
    (copy / "README.md").write_text("words")
    assert source.digest() == before
    change(copy / "scheduler" / "scheduler_config.json", flow_shift=7.0)
    assert source.digest() != before
    assert source.num_parameters() == resolve_source(video_recipe(wan("t2v"))).num_parameters()


def test_options_of_videos_are_a_users_choice(wan: Wan) -> None:
    plain = video_recipe(wan("t2v"))
    other = video_recipe(wan("t2v"), videos={"default_fps": 16})
    assert manifest.fingerprint(plain, "digest") != manifest.fingerprint(other, "digest")
    with pytest.raises(RecipeError, match="videos: Extra inputs are not permitted"):
        recipe.make(name="a", source="b", videos={"default_fps": 16})


@pytest.mark.parametrize(
    ("kind", "references"), [("t2v", ["frames"]), ("ti2v", ["image", "frames"]), ("i2v", ["image"])]
)
def test_the_model_describes_itself_to_the_gateway(kind: str, references: list[str], wan: Wan) -> None:
    chosen = video_recipe(wan(kind), served_name="films")
    config = config_pbtxt.parse(triton_config.render_pipeline(chosen, pipeline.read(wan(kind))))
    values = {key: value.string_value for key, value in config.parameters.items()}
    assert (config.backend, config.max_batch_size) == ("diffusion", 0)
    assert config.model_transaction_policy.decoupled
    assert (values["served_name"], values["signature"]) == ("films", "video")
    assert json.loads(values["operations"]) == ["generate_video"]
    assert json.loads(values["references"]) == references
    assert json.loads(values["sizes"]) == [[96, 64], [64, 64]]
    numbers = {name: int(values[name]) for name in ("default_num_frames", "max_num_frames", "frame_multiple")}
    assert numbers == {"default_num_frames": 9, "max_num_frames": 33, "frame_multiple": 4}
    assert {"prompt", "image", "frames", "num_frames", "fps"} < {tensor.name for tensor in config.input}


def test_without_sizes_a_recipe_accepts_those_between_the_usual_ones(wan: Wan) -> None:
    options = triton_config.size_options(video_recipe(wan("t2v"), videos={}), pipeline.read(wan("t2v")))
    assert options == {"size_multiple": 16, "min_size": 256, "max_size": 1024, "default_size": (832, 480)}


def test_parts_declare_their_caches_to_triton(wan: Wan) -> None:
    read = pipeline.read(wan("t2v"))
    (part,) = [part for part in pipeline_parts(read) if part.name == "vae-decoder-next"]
    config = config_pbtxt.parse(render_part(video_recipe(wan("t2v")), "tiny-vae-decoder-next", part))
    caches = pipeline_json.describe(read, "tiny")["vae"]["decoder_caches"]
    assert [tensor.name for tensor in config.input] == ["latent", *(f"cache_{number}" for number in range(caches))]
    assert [tensor.name for tensor in config.output][1:] == [f"cache_out_{number}" for number in range(caches)]
    assert [list(tensor.dims) for tensor in config.input[1:]] == [list(tensor.dims) for tensor in config.output[1:]]
    assert list(config.output[0].dims) == [3, 4, -1, -1]


def test_plans_accept_the_sizes_and_lengths_of_the_recipe(wan: Wan) -> None:
    read = pipeline.read(wan("ti2v"))
    sizes = plan_sizes(video_recipe(read.folder, target="tensorrt"), read)
    parts = {part.name: part for part in pipeline_parts(read)}
    denoiser = sizes.profile(parts["denoiser"])
    assert denoiser["sample"] == ((1, 12, 1, 4, 4), (2, 12, 3, 4, 6), (16, 12, 9, 4, 6))
    assert denoiser["timestep"] == ((1, 1), (2, 3), (16, 9))
    assert denoiser["encoder_hidden_states"][2] == (16, 24, 32)
    decoder = sizes.profile(parts["vae-decoder-next"])
    assert decoder["latent"] == ((1, 12, 1, 4, 4), (2, 12, 1, 4, 6), (16, 12, 1, 4, 6))
    assert decoder["cache_0"] == ((1, 12, 2, 4, 4), (2, 12, 2, 4, 6), (16, 12, 2, 4, 6))
    assert sizes.profile(parts["vae-encoder-first"])["video"][2] == (16, 3, 1, 64, 96)
    first = next(sizes.examples(parts["denoiser"]))
    assert first["sample"].shape == (1, 12, 1, 4, 4)
