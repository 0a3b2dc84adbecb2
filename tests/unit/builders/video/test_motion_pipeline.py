"""AnimateDiff pipelines before the export: their sources, refusals, parts and descriptions."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from builders import config_pbtxt
from builders.build import build, resolve_source
from builders.diffusion.parts import example_inputs
from builders.diffusion.pipeline_json import describe_scheduler
from builders.errors import BuildError, RecipeError, SourceUnavailable, UnsupportedModel
from builders.progress import NullProgress
from builders.video import pipeline_json, triton_config
from builders.video.builder import VideoBuilder
from builders.video.family import VideoRecipe
from builders.video.motion_networks import load_motion_part
from builders.video.motion_pipeline import MotionPipeline, read_motion
from builders.video.motion_sources import MotionSource
from builders.video.parts import pipeline_parts
from builders.video.plan_sizes import plan_sizes
from tests.fakes.tiny_animatediff import MAX_FRAMES, make_animatediff_pipeline, make_base_and_adapter
from tests.unit.builders.shared_fixture import make_once
from tests.unit.builders.video.tiny_video_recipe import video_recipe

SIZES = {"sizes": [[48, 32]]}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> MotionPipeline:
    """A pipeline whose UNet holds the motion layers."""
    return read_motion(
        make_once(tmp_path_factory, "animatediff", lambda folder: make_animatediff_pipeline(folder / "whole"))
    )


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    return make_base_and_adapter(tmp_path)


def change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_bytes()) | values))


def join(two: tuple[Path, Path]) -> MotionSource:
    return MotionSource.resolve(f"{two[0]} + {two[1]}")


def test_the_rewritten_unet_computes_what_diffusers_does_for_several_videos(whole: MotionPipeline) -> None:
    """Every row has a timestep and a prompt of its own."""
    (part,) = [part for part in pipeline_parts(whole) if part.name == "denoiser"]
    for batch, frames in ((1, 5), (3, 4)):
        sizes = {"height": 2, "width": 3, "tokens": 7, "frames": frames}
        inputs = {key: torch.from_numpy(value) for key, value in example_inputs(part, batch, sizes).items()}
        with torch.inference_mode():
            ours, theirs = (load_motion_part(whole, part, rewritten=flag)(**inputs) for flag in (True, False))
        assert torch.allclose(ours, theirs, atol=1e-5)
        assert theirs.shape == inputs["sample"].shape and theirs.std() > 0.1


def test_two_sources_are_joined(two: tuple[Path, Path], tmp_path: Path) -> None:
    source = join(two)
    read = read_motion(source.fetch(tmp_path / "scratch", NullProgress()).folder)
    assert (read.family, read.max_latent_frames, read.size_multiple) == ("animatediff", MAX_FRAMES, 16)
    scheduler = describe_scheduler(read)
    assert (scheduler["class"], scheduler["beta_schedule"], scheduler["beta_end"]) == ("DDIMScheduler", "linear", 0.012)
    before = source.digest()
    change(two[1] / "config.json", motion_max_seq_length=8)
    assert join(two).digest() != before


@pytest.mark.parametrize(
    ("source", "error", "sentence"),
    [
        ("{base} + ", RecipeError, "must name a pipeline and a motion adapter"),
        ("{base} + {adapter} + {adapter}", RecipeError, "must name a pipeline and a motion adapter"),
        ("{base} + packaged:shapes", RecipeError, "no packaged motion adapter"),
        ("{base} + /nowhere", SourceUnavailable, "no folder '/nowhere'"),
        ("{base} + {base}/unet", UnsupportedModel, "of the class UNet2DConditionModel; MotionAdapter is built"),
    ],
)
def test_other_pairs_of_sources_are_refused(
    two: tuple[Path, Path], source: str, error: type[BuildError], sentence: str, tmp_path: Path
) -> None:
    recipe = video_recipe(Path("x")).model_copy(update={"source": source.format(base=two[0], adapter=two[1])})
    with pytest.raises(error, match=sentence):
        resolve_source(recipe).config()
    with pytest.raises(error, match=sentence):
        build(recipe, tmp_path / "repository")


@pytest.mark.parametrize(
    ("file", "values", "sentence"),
    [
        ("model_index.json", {"unet": ["diffusers", "UNet3DConditionModel"]}, "unet .* is UNet3D.*UNetMotionModel"),
        ("model_index.json", {"vae": ["evil", "AutoencoderKL"]}, "vae .* is of 'evil'"),
        ("unet/config.json", {"in_channels": 9}, "takes 9 channels where the VAE has 4"),
        ("unet/config.json", {"encoder_hid_dim_type": "ip_image_proj"}, "encoder_hid_dim_type"),
    ],
)
def test_unsupported_pipelines_are_refused(
    whole: MotionPipeline, tmp_path: Path, file: str, values: dict[str, Any], sentence: str
) -> None:
    folder = Path(shutil.copytree(whole.folder, tmp_path / "copy", ignore=shutil.ignore_patterns("*.safetensors")))
    change(folder / file, **values)
    with pytest.raises(UnsupportedModel, match=sentence):
        read_motion(folder)


@pytest.mark.parametrize(
    ("videos", "sentence"),
    [
        ({"default_num_frames": 8, "max_num_frames": 13}, f"positions for {MAX_FRAMES} latent frames"),
        ({"default_num_frames": 8, "max_num_frames": 7}, "max_num_frames is below default_num_frames"),
    ],
)
def test_lengths_are_those_of_the_motion_layers(
    whole: MotionPipeline, videos: dict[str, int], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=sentence):
        build(video_recipe(whole.folder, videos=SIZES | videos), tmp_path / "repository")


def test_the_model_describes_itself(whole: MotionPipeline) -> None:
    recipe = video_recipe(whole.folder, videos=SIZES | {"default_num_frames": 8, "max_num_frames": MAX_FRAMES})
    config = config_pbtxt.parse(triton_config.render_pipeline(recipe, whole))
    values = {key: value.string_value for key, value in config.parameters.items()}
    assert json.loads(values["references"]) == ["frames"]
    numbers = {name: int(values[name]) for name in ("default_num_frames", "max_num_frames", "frame_multiple")}
    assert numbers == {"default_num_frames": 8, "max_num_frames": MAX_FRAMES, "frame_multiple": 1}
    source = resolve_source(recipe)
    names = VideoBuilder().sibling_models(recipe, source)
    assert names == tuple(f"tiny-{part.name}" for part in pipeline_parts(whole))
    components = pipeline_json.describe(whole, "tiny")["components"]
    assert {*components.pop("text_encoders"), *components.values()} == set(names)
    sizes = plan_sizes(recipe, whole)
    (part,) = [part for part in pipeline_parts(whole) if part.name == "denoiser"]
    assert sizes.profile(part)["sample"] == ((1, 4, 1, 4, 6), (2, 4, 8, 4, 6), (16, 4, MAX_FRAMES, 4, 6))


def test_a_recipe_without_a_length_has_that_of_its_family() -> None:
    made = VideoRecipe(family="video", name="tiny", source="a/b")
    assert triton_config.numbers_of_frames(made, "animatediff") == (16, 16)
    assert triton_config.numbers_of_frames(made, "wan") == (80, 81)
