"""Targets, devices and number formats of image and embedding models; what Triton reads of those for GPUs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from google.protobuf import json_format

from backends.onnxruntime.options import read_options
from backends.serving.execution_providers import choose_providers
from builders import config_pbtxt, registry
from builders import recipe as recipes
from builders.build import build
from builders.diffusion import builder as diffusion
from builders.diffusion import pipeline, triton_config
from builders.diffusion.family import DiffusionRecipe
from builders.diffusion.parts import pipeline_parts
from builders.embedding import builder as embedding
from builders.engine_targets import Device, EngineTargets
from builders.errors import UnsupportedModel
from builders.recipe import Precision, Target
from tests.fakes.pipelines import make_pipeline

BUILT = {
    "image": {"onnx cpu fp32", "onnx cuda fp32", "onnx cuda fp16", "tensorrt cuda fp32", "tensorrt cuda fp16"},
    "embedding": {
        "onnx cpu fp32",
        "onnx cpu int8",
        "onnx cuda fp32",
        "onnx cuda fp16",
        "tensorrt cuda fp32",
        "tensorrt cuda fp16",
    },
}
TABLES = {"image": diffusion.TARGETS, "embedding": embedding.TARGETS}


@pytest.mark.parametrize("kind", TABLES)
def test_every_combination_is_built_or_refused_with_its_reason(kind: str) -> None:
    table: EngineTargets = TABLES[kind]
    found = set()
    for target in get_args(Target):
        for device in get_args(Device):
            for precision in get_args(Precision):
                try:
                    table.check(target, device, precision)
                except UnsupportedModel as error:
                    assert str(error).endswith(".") and target in str(error)
                else:
                    found.add(f"{target} {device} {precision}")
    assert found == BUILT[kind]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            {"precision": "fp16"},
            r"For onnx, .* built in .*, not fp16\. fp16 is for GPUs: add --device cuda\.",
        ),
        ({"target": "tensorrt", "device": "cpu"}, "TensorRT runs on NVIDIA GPUs alone"),
        ({"device": "cuda", "precision": "int8"}, "For onnx on cuda, .* models are built in fp32 or fp16, not int8"),
        ({"target": "tensorrt"}, "built on the GPU that runs them, and this machine has none"),
    ],
)
@pytest.mark.parametrize(("family", "source"), [("diffusion", "packaged:shapes"), ("embedding", "unpacked")])
def test_a_build_is_refused_before_anything_is_fetched(
    family: str, source: str, values: dict[str, Any], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dev").mkdir()
    monkeypatch.setattr("builders.tensorrt_plan.DEVICES", tmp_path / "dev")
    if source == "unpacked":
        (tmp_path / source).mkdir()
        (tmp_path / source / "config.json").write_text('{"model_type": "bert"}')
        source = str(tmp_path / source)
    with pytest.raises(UnsupportedModel, match=sentence):
        build(recipes.make(family=family, name="tiny", source=source, **values), tmp_path / "repository")
    assert not (tmp_path / "repository").exists()


@pytest.mark.parametrize("command", ["diffusion", "embedding"])
def test_the_target_decides_the_device_unless_the_recipe_does(command: str) -> None:
    def device(**values: Any) -> Any:
        return recipes.make(family=command, name="a", source="b", **values).device  # type: ignore[attr-defined]

    assert (device(), device(target="tensorrt"), device(device="cuda")) == ("cpu", "cuda", "cuda")
    options = {option.field for option in registry.find(command).options}
    assert {"target", "device", "precision"} <= options


@pytest.fixture(scope="module")
def render(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Return a function that gives the parsed config.pbtxt of a denoiser."""
    read = pipeline.read(make_pipeline(tmp_path_factory.mktemp("pipeline") / "sd", "sd"))
    (denoiser,) = [part for part in pipeline_parts(read) if part.name == "denoiser"]

    def rendered(**values: Any) -> Any:
        recipe = recipes.make(family="diffusion", name="tiny", source="b", **values)
        assert isinstance(recipe, DiffusionRecipe)
        return config_pbtxt.parse(triton_config.render_part(recipe, "tiny-denoiser", denoiser))

    return rendered


def test_parts_for_cuda_have_the_blocks_of_nvidias_backend(render: Callable[..., Any]) -> None:
    config = render(device="cuda", precision="fp16", threads=3)
    assert (config.backend, config.max_batch_size) == ("onnxruntime", 16)
    assert [group.kind for group in config.instance_group] == [config.instance_group[0].KIND_GPU]
    assert config.HasField("dynamic_batching")
    (accelerator,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert (accelerator.name, dict(accelerator.parameters)) == ("cuda", {"cudnn_conv_use_max_workspace": "1"})
    values = {key: value.string_value for key, value in config.parameters.items()}
    assert values == {"component": "tiny", "cudnn_conv_algo_search": "1", "arena_extend_strategy": "1"}


def test_our_backend_reads_the_same_blocks(render: Callable[..., Any]) -> None:
    """As Triton passes them: JSON of the parsed configuration."""
    config = json_format.MessageToDict(render(device="cuda"), preserving_proto_field_name=True)
    assert read_options(config).unknown_parameters == ()
    (name, options), (fallback, _) = choose_providers(
        config, "GPU", "1", ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    assert (name, fallback) == ("CUDAExecutionProvider", "CPUExecutionProvider")
    assert options == {
        "device_id": "1",
        "cudnn_conv_use_max_workspace": "1",
        "cudnn_conv_algo_search": "HEURISTIC",
        "arena_extend_strategy": "kSameAsRequested",
    }
    with pytest.raises(ValueError, match=r"CUDAExecutionProvider is configured.*onnxruntime-gpu"):
        choose_providers(config, "GPU", "0", ["CPUExecutionProvider"])


def test_parts_for_a_cpu_are_as_before(render: Callable[..., Any]) -> None:
    config = render(threads=3)
    assert [group.kind for group in config.instance_group] == [config.instance_group[0].KIND_AUTO]
    assert not config.HasField("optimization") and not config.platform
    values = {key: value.string_value for key, value in config.parameters.items()}
    assert values == {"component": "tiny", "intra_op_thread_count": "3"}
