"""The target `tensorrt_llm`: the command, the filled templates, and an installation with and without `trtllm-build`."""

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from builders import config_pbtxt, manifest, recipe
from builders.build import build
from builders.errors import ExportFailed, MissingDependency, SourceUnavailable, UnsupportedModel, VerificationFailed
from builders.llm import trtllm_model, trtllm_templates
from builders.llm.recipe import LLMRecipe
from builders.recipe import Recipe
from gateway.models import models_file
from tests.unit.builders.modelopt_stand_in import modelopt

__all__ = ["modelopt"]

Recipes = Callable[..., Recipe]

NUMBERS = {
    "ensemble": "max_batch_size: ${triton_max_batch_size}",
    "preprocessing": """max_batch_size: ${triton_max_batch_size}
dynamic_batching {
    preferred_batch_size: [ ${triton_max_batch_size} ]
    max_queue_delay_microseconds: ${max_queue_delay_microseconds}
    default_queue_policy: { max_queue_size: ${max_queue_size} }
}
instance_group [ { count: ${preprocessing_instance_count} kind: KIND_CPU } ]""",
    "postprocessing": """max_batch_size: ${triton_max_batch_size}
instance_group [ { count: ${postprocessing_instance_count} kind: KIND_CPU } ]""",
    "tensorrt_llm_bls": """max_batch_size: ${triton_max_batch_size}
model_transaction_policy { decoupled: ${decoupled_mode} }
input [ { name: "prompt_embedding_table" data_type: ${prompt_embedding_table_data_type} dims: [ -1, -1 ] } ]
output [ { name: "context_logits" data_type: ${logits_datatype} dims: [ -1, -1 ] } ]
instance_group [ { count: ${bls_instance_count} kind : KIND_CPU } ]""",
    "tensorrt_llm": """backend: "${triton_backend}"
max_batch_size: ${triton_max_batch_size}
model_transaction_policy { decoupled: ${decoupled_mode} }
dynamic_batching {
    max_queue_delay_microseconds: ${max_queue_delay_microseconds}
    default_queue_policy: { max_queue_size: ${max_queue_size} }
}
input [
  { name: "encoder_input_features" data_type: ${encoder_input_features_data_type} dims: [ -1, -1 ] },
  { name: "prompt_embedding_table" data_type: ${prompt_embedding_table_data_type} dims: [ -1, -1 ] }
]
output [ { name: "context_logits" data_type: ${logits_datatype} dims: [ -1, -1 ] } ]""",
}
"""Places of numbers, types and names in the published templates, which must all be filled."""

STRINGS = {
    "ensemble": (),
    "preprocessing": ("tokenizer_dir", "add_special_tokens", "multimodal_model_path", "engine_dir", "max_num_images"),
    "postprocessing": ("tokenizer_dir", "skip_special_tokens"),
    "tensorrt_llm_bls": ("accumulate_tokens", "tensorrt_llm_model_name", "tensorrt_llm_draft_model_name"),
    "tensorrt_llm": (
        "engine_dir",
        "batching_strategy",
        "kv_cache_free_gpu_mem_fraction",
        "enable_kv_cache_reuse",
        "exclude_input_in_output",
        "cancellation_check_period_ms",
        "enable_chunked_context",
        "guided_decoding_backend",
        "tokenizer_dir",
        "max_beam_width",
        "lora_prefetch_dir",
    ),
}
"""Places of strings, which a model takes for unset if they are not filled."""


def template(model: str) -> str:
    parameters = "".join(
        f'parameters: {{ key: "{name}" value: {{ string_value: "${{{name}}}" }} }}\n' for name in STRINGS[model]
    )
    return f'# Use ${{anything}} in comments.\nname: "{model}"\n{NUMBERS[model]}\n{parameters}'


@pytest.fixture
def templates(tmp_path: Path) -> Path:
    """A folder in the shape of the container's `inflight_batcher_llm`."""
    root = tmp_path / "container" / "inflight_batcher_llm"
    for model in NUMBERS:
        (root / model / "1").mkdir(parents=True)
        (root / model / "config.pbtxt").write_text(template(model))
        if model in ("preprocessing", "postprocessing", "tensorrt_llm_bls"):
            (root / model / "1" / "model.py").write_text(f"# {model}\n")
    return root


@pytest.fixture
def frozen(tiny_recipe: Recipes, templates: Path) -> Recipes:
    """Make a recipe for `tensorrt_llm` of the tiny Llama."""

    def make(**options: Any) -> Recipe:
        return tiny_recipe(
            **{
                "target": "tensorrt_llm",
                "precision": "checkpoint",
                "checkpoint_quantization": "fp8",
                "templates": str(templates),
                "mounted_at": "/models",
            }
            | options
        )

    return make


def parameters(folder: Path) -> dict[str, str]:
    config = config_pbtxt.parse((folder / "config.pbtxt").read_text())
    return {name: value.string_value for name, value in config.parameters.items()}


def test_every_placeholder_of_the_templates_is_filled_or_left_on_purpose(templates: Path, tmp_path: Path) -> None:
    given = trtllm_templates.values(
        engine_folder="/models/tensorrt_llm/1", tokenizer_folder="/models/t/1/tokenizer", max_rows=32, max_waiting=100
    )
    trtllm_templates.write_models(templates, tmp_path / "t", tmp_path, "t", given)
    assert config_pbtxt.parse((tmp_path / "t" / "config.pbtxt").read_text()).name == "t"
    engine = config_pbtxt.parse((tmp_path / "tensorrt_llm" / "config.pbtxt").read_text())
    assert (engine.backend, engine.max_batch_size, engine.model_transaction_policy.decoupled) == (
        "tensorrtllm",
        32,
        True,
    )
    assert engine.dynamic_batching.default_queue_policy.max_queue_size == 100
    assert parameters(tmp_path / "tensorrt_llm") == {
        "engine_dir": "/models/tensorrt_llm/1",
        "batching_strategy": "inflight_fused_batching",
        "kv_cache_free_gpu_mem_fraction": "0.9",
        "enable_kv_cache_reuse": "true",
        "exclude_input_in_output": "true",
        "cancellation_check_period_ms": "100",
        "enable_chunked_context": "true",
        "guided_decoding_backend": "${guided_decoding_backend}",
        "tokenizer_dir": "/models/t/1/tokenizer",
        "max_beam_width": "1",
        "lora_prefetch_dir": "${lora_prefetch_dir}",
    }
    bls = config_pbtxt.parse((tmp_path / "tensorrt_llm_bls" / "config.pbtxt").read_text())
    assert bls.instance_group[0].count == 32
    assert parameters(tmp_path / "tensorrt_llm_bls")["accumulate_tokens"] == "true"
    assert parameters(tmp_path / "preprocessing")["tokenizer_dir"] == "/models/t/1/tokenizer"
    assert (tmp_path / "tensorrt_llm_bls" / "1" / "model.py").read_text() == "# tensorrt_llm_bls\n"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("max_batch_size: ${triton_max_batch_sizes}", r"x\.pbtxt: the placeholder \$\{triton_max_batch_sizes\} is unk"),
        ('backend: "${novelty}"', r"x\.pbtxt: the placeholder \$\{novelty\} is unknown"),
        ("max_batch_size: ${max_num_images}", r"\$\{max_num_images\} has no value, and is no string"),
        ('backend: "a${max_num_images}"', r"\$\{max_num_images\} has no value, and is no string"),
        ("max_batch_size: ${}", r"\$\{\} is unknown"),
        ("max_batch_size: ${triton_max_batch_size", r"'\$\{triton_max_batch_size' is left"),
        ("max_batch_size: $triton_max_batch_size", r"is left, which is no placeholder"),
        ("max_batch_size: ${logits_datatype}", r"not a configuration of Triton"),
    ],
)
def test_an_unknown_or_unfilled_placeholder_is_refused_with_file_and_name(line: str, message: str) -> None:
    given = trtllm_templates.values(engine_folder="/e", tokenizer_folder="/t", max_rows=1, max_waiting=1)
    with pytest.raises(SourceUnavailable, match=message):
        trtllm_templates.fill(line, given, Path("x.pbtxt"))


def test_no_placeholder_is_both_filled_and_unset() -> None:
    given = trtllm_templates.values(engine_folder="/e", tokenizer_folder="/t", max_rows=1, max_waiting=1)
    assert not trtllm_templates.UNSET & given.keys()


def test_a_folder_without_all_models_is_refused(frozen: Recipes, templates: Path, tmp_path: Path) -> None:
    (templates / "postprocessing" / "config.pbtxt").unlink()
    with pytest.raises(SourceUnavailable, match="not the folder inflight_batcher_llm"):
        build(frozen(), tmp_path / "repository")


def test_without_modelopt_nothing_is_built(frozen: Recipes, tmp_path: Path) -> None:
    with pytest.raises(MissingDependency, match="nvidia-modelopt"):
        build(frozen(checkpoint_quantization=None), tmp_path / "repository")
    assert not (tmp_path / "repository").exists()


def test_the_command_has_the_flags_of_the_recipe() -> None:
    made = recipe.make(
        name="m",
        source="/m",
        target="tensorrt_llm",
        checkpoint_quantization="fp8",
        kv_cache_precision="fp8",
        tensor_parallel=2,
        pipeline_parallel=2,
        max_rows=64,
        templates="/t",
    )
    assert isinstance(made, LLMRecipe)
    assert shlex.join(trtllm_model.engine_command(made, "ckpt", "engine", 4096)) == (
        "trtllm-build --checkpoint_dir ckpt --output_dir engine --workers 4 --gemm_plugin auto --max_batch_size 64 "
        "--max_input_len 4096 --max_seq_len 4096 --max_num_tokens 8192 --max_beam_width 1 --kv_cache_type paged "
        "--tokens_per_block 32 --use_paged_context_fmha enable --use_fp8_context_fmha enable --reduce_fusion enable "
        "--multiple_profiles enable"
    )
    plain = made.model_copy(update={"checkpoint_quantization": None, "tensor_parallel": 1})
    command = trtllm_model.engine_command(plain, "ckpt", "engine", 4096)
    assert "--use_fp8_context_fmha" not in command and "--reduce_fusion" not in command


@pytest.mark.exports
def test_without_the_compiler_the_command_is_installed(
    modelopt: Callable[..., Path], frozen: Recipes, tmp_path: Path
) -> None:
    modelopt()
    repository = tmp_path / "repository"
    built = build(frozen(tensor_parallel=2, pipeline_parallel=2, context_length=128), repository)
    assert {path.name for path in repository.iterdir()} == {"tiny", *trtllm_templates.STEPS}
    engine = repository / "tensorrt_llm" / "1"
    script = engine / "trtllm-build.sh"
    assert "--checkpoint_dir checkpoint --output_dir . --workers 4" in script.read_text()
    assert script.stat().st_mode & 0o111
    assert sorted(path.name for path in (engine / "checkpoint").iterdir()) == [
        "config.json",
        *(f"rank{rank}.safetensors" for rank in range(4)),
    ]
    exported = json.loads((engine / "checkpoint" / "config.json").read_bytes())
    assert (exported["decoder_type"], exported["dtype"]) == ("llama", "torch.bfloat16")
    record = manifest.read(built.folder)
    assert record is not None
    assert "last release that builds" in record["verification"]["frozen"]
    assert (built.metrics["compiled"], sorted(record["parts"])) == (False, sorted(trtllm_templates.STEPS))
    tokenizer = built.folder / "1" / "tokenizer"
    assert {"tokenizer.json", "tokenizer_config.json", "config.json", "generation_config.json"} <= {
        path.name for path in tokenizer.iterdir()
    }
    described = models_file.read(built.folder / "models.toml")
    assert described["tiny"]["context_length"] == "128" and "chat_template" in described["tiny"]
    assert described["tensorrt_llm_bls"]["hidden"] == "true"


COMPILER = """
import pathlib, sys
folder = pathlib.Path(sys.argv[sys.argv.index("--output_dir") + 1])
print("[TRT-LLM] [I] Total time of building all engines")
if {succeeds}:
    (folder / "rank0.engine").write_bytes(b"engine")
    (folder / "config.json").write_text("{{}}")
else:
    sys.exit("out of memory on the GPU")
"""


@pytest.mark.exports
@pytest.mark.parametrize("succeeds", [True, False])
def test_the_compiler_of_the_machine_is_run(
    succeeds: bool,
    modelopt: Callable[..., Path],
    frozen: Recipes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    modelopt()
    program = tmp_path / "bin" / "trtllm-build"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\n{COMPILER.format(succeeds=succeeds)}")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    if not succeeds:
        with pytest.raises(ExportFailed, match="out of memory on the GPU"):
            build(frozen(), tmp_path / "repository")
        assert not (tmp_path / "repository").exists()
        return
    built = build(frozen(), tmp_path / "repository")
    engine = tmp_path / "repository" / "tensorrt_llm" / "1"
    assert (engine / "rank0.engine").is_file() and not (engine / "trtllm-build.sh").exists()
    assert built.metrics["compiled"] is True


@pytest.mark.exports
def test_a_lost_rotary_embedding_is_refused(modelopt: Callable[..., Path], frozen: Recipes, tmp_path: Path) -> None:
    modelopt("rope")
    with pytest.raises(VerificationFailed, match="rotary embedding was lost"):
        build(frozen(), tmp_path / "repository")


def test_a_missing_rank_and_a_lost_scaling_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"rotary_base": 500000, "rotary_scaling": null}')
    with pytest.raises(VerificationFailed, match=r"no rank0\.safetensors, rank1\.safetensors"):
        trtllm_model.verify_checkpoint({"rope_theta": 500000.0}, tmp_path, 2)
    head = b'{"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}'
    (tmp_path / "rank0.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + b"a")
    trtllm_model.verify_checkpoint({"rope_theta": 500000.0}, tmp_path, 1)
    scaled = {"rope_theta": 500000.0, "rope_scaling": {"rope_type": "llama3", "factor": 8.0}}
    with pytest.raises(VerificationFailed, match=r"'factor': 8\.0.*'factor': None"):
        trtllm_model.verify_checkpoint(scaled, tmp_path, 1)


def test_an_architecture_that_is_not_known_is_refused_before_the_weights_are_fetched(
    modelopt: Callable[..., Path], tiny: Path, frozen: Recipes, tmp_path: Path
) -> None:
    modelopt()
    source = tmp_path / "mamba"
    source.mkdir()
    for path in tiny.iterdir():
        (source / path.name).symlink_to(path)
    (source / "config.json").unlink()
    config = json.loads((tiny / "config.json").read_bytes()) | {"architectures": ["MambaForCausalLM"]}
    (source / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedModel, match="MambaForCausalLM is not built for tensorrt_llm"):
        build(frozen(source=str(source)), tmp_path / "repository")
