"""The targets `vllm` and `llmapi`: what is written, and that the backend `llm` and the gateway read it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tokenizers import Tokenizer

from backends.llm.engines import read_options
from backends.llm.model_loader import load_model
from builders import config_pbtxt, manifest
from builders.build import build
from builders.checkpoint import Checkpoint
from builders.errors import RecipeError, SourceUnavailable, UnsupportedModel
from builders.progress import NullProgress
from builders.recipe import Recipe
from builders.sources import HubSource
from gateway.models import models_file
from tests.unit.builders.tiny_llama import TEMPLATE
from tests.unit.llm.external import llmapi_stand_in, vllm_stand_in

Recipes = Callable[..., Recipe]

LLMAPI_CONFIG = """
name: "tensorrt_llm"  # as published
backend: "python"
input [ { name: "text_input" data_type: TYPE_STRING dims: [ -1 ] } ]
output [ { name: "text_output" data_type: TYPE_STRING dims: [ -1 ] } ]
instance_group [ { count: 1 kind : KIND_CPU } ]
"""


@pytest.fixture
def container(tmp_path: Path) -> Path:
    """A folder in the shape of `llmapi` in NVIDIA's container."""
    model = tmp_path / "container" / "llmapi" / "tensorrt_llm"
    (model / "1").mkdir(parents=True)
    (model / "config.pbtxt").write_text(LLMAPI_CONFIG)
    for name in ("model.py", "helpers.py"):
        (model / "1" / name).write_text(f"# {name} of the container\n")
    return tmp_path / "container" / "llmapi"


def triton_parameters(folder: Path) -> dict[str, Any]:
    """Return the parameters of a `config.pbtxt` as Triton hands them to a backend."""
    config = config_pbtxt.parse((folder / "config.pbtxt").read_text())
    return {name: {"string_value": value.string_value} for name, value in config.parameters.items()}


@pytest.mark.parametrize("target", ["vllm", "llmapi"])
def test_the_backend_loads_what_is_built(
    target: str, tiny: Path, tiny_recipe: Recipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    {"vllm": vllm_stand_in, "llmapi": llmapi_stand_in}[target].install(monkeypatch)
    recipe = tiny_recipe(
        target=target, precision="checkpoint", context_length=128, tensor_parallel=2, kv_cache_precision="fp8"
    )
    built = build(recipe, tmp_path / "repository")
    version = built.folder / "1"
    options = read_options(triton_parameters(built.folder))
    assert (options.engine, options.context_length, options.max_rows) == (target, 128, 128)
    loaded = load_model(version, Tokenizer.from_file(str(version / "tokenizer.json")), options)
    try:
        assert (loaded.bos, loaded.eos) == (0, frozenset({1, 2}))
        if target == "vllm":
            args = vllm_stand_in.AsyncLLM.latest.args
            assert (args.model, args.max_model_len) == (str((version / "checkpoint").resolve()), 128)
        else:
            llm = llmapi_stand_in.LLM.latest
            assert (llm.model, llm.arguments["max_seq_len"]) == (str((version / "checkpoint").resolve()), 128)
    finally:
        loaded.engine.close()


def test_a_vllm_model_has_weights_tokenizer_and_configuration(tiny: Path, tiny_recipe: Recipes, tmp_path: Path) -> None:
    source = shutil.copytree(tiny, tmp_path / "source")
    recipe = tiny_recipe(source=str(source), target="vllm", precision="checkpoint", max_rows=64)
    built = build(recipe, tmp_path / "repository")
    version = built.folder / "1"
    assert json.loads((version / "model.json").read_bytes()) == {
        "model": "checkpoint",
        "dtype": "auto",
        "tensor_parallel_size": 1,
        "pipeline_parallel_size": 1,
    }
    assert {"tokenizer.json", "tokenizer_config.json", "config.json", "generation_config.json"} <= {
        path.name for path in version.iterdir()
    }
    weights = version / "checkpoint" / "model.safetensors"
    assert weights.stat().st_ino == (source / "model.safetensors").stat().st_ino, "a hard link, no copy"
    config = config_pbtxt.parse((built.folder / "config.pbtxt").read_text())
    assert config.backend == "llm" and config.model_transaction_policy.decoupled
    assert config.instance_group[0].kind == config.instance_group[0].KIND_MODEL
    parameters = {name: value.string_value for name, value in config.parameters.items()}
    assert (parameters["engine"], parameters["precision"], parameters["max_rows"]) == ("vllm", "fp32", "64")
    assert parameters["chat_template"] == TEMPLATE
    assert "threads" not in parameters
    assert built.metrics["parameters"] == Checkpoint(tiny).num_parameters()
    assert built.metrics["linked"] is True
    assert not build(recipe, tmp_path / "repository").is_new


def test_files_are_copied_where_links_are_impossible(
    tiny: Path, tiny_recipe: Recipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("os.link", refuse)
    built = build(tiny_recipe(target="vllm", precision="fp16", device="cpu"), tmp_path / "repository")
    weights = built.folder / "1" / "checkpoint" / "model.safetensors"
    assert weights.read_bytes() == (tiny / "model.safetensors").read_bytes()
    assert built.metrics["linked"] is False
    config = config_pbtxt.parse((built.folder / "config.pbtxt").read_text())
    assert config.instance_group[0].kind == config.instance_group[0].KIND_CPU
    assert json.loads((built.folder / "1" / "model.json").read_bytes())["dtype"] == "float16"


def test_llmapi_gets_its_arguments_as_yaml(tiny_recipe: Recipes, tmp_path: Path) -> None:
    recipe = tiny_recipe(target="llmapi", precision="checkpoint", pipeline_parallel=2, kv_cache_precision="fp8")
    built = build(recipe, tmp_path / "repository")
    assert yaml.safe_load((built.folder / "1" / "model.yaml").read_text()) == {
        "model": "checkpoint",
        "dtype": "auto",
        "tensor_parallel_size": 1,
        "pipeline_parallel_size": 2,
        "backend": "pytorch",
        "kv_cache_config": {"dtype": "fp8"},
    }


def test_a_folder_by_reference_stays_where_it_is(tiny: Path, tiny_recipe: Recipes, tmp_path: Path) -> None:
    built = build(tiny_recipe(target="vllm", precision="checkpoint", reference=True), tmp_path / "repository")
    assert json.loads((built.folder / "1" / "model.json").read_bytes())["model"] == str(tiny)
    assert not (built.folder / "1" / "checkpoint").exists()
    record = manifest.read(built.folder)
    assert record is not None and record["verification"]["weights"] == "reference"


def test_a_hub_id_by_reference_is_pinned_and_its_weights_are_not_downloaded(
    tiny: Path, tiny_recipe: Recipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configuration = shutil.copytree(tiny, tmp_path / "hub", ignore=shutil.ignore_patterns("*.safetensors"))
    monkeypatch.setattr(HubSource, "_commit_and_size", ("c0ffee", 1000))
    monkeypatch.setattr(HubSource, "config", lambda self: Checkpoint(tiny).config())
    monkeypatch.setattr(HubSource, "fetch_configuration", lambda self, progress: Checkpoint(configuration))
    recipe = tiny_recipe(source="some/model", target="vllm", precision="checkpoint", reference=True)
    built = build(recipe, tmp_path / "repository")
    arguments = json.loads((built.folder / "1" / "model.json").read_bytes())
    assert (arguments["model"], arguments["revision"]) == ("some/model", "c0ffee")
    assert triton_parameters(built.folder)["owned_by"]["string_value"] == "some"


def test_packaged_weights_cannot_be_a_reference(tiny_recipe: Recipes, tmp_path: Path) -> None:
    recipe = tiny_recipe(source="packaged:smollm2-135m-instruct", target="vllm", precision="checkpoint", reference=True)
    with pytest.raises(RecipeError, match="unpacked for a build only"):
        build(recipe, tmp_path / "repository")


def test_a_checkpoint_that_lacks_a_weight_file_is_refused(tiny: Path, tiny_recipe: Recipes, tmp_path: Path) -> None:
    source = shutil.copytree(tiny, tmp_path / "source")
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(SourceUnavailable, match=r"lacks weight files .* model-00002-of-00002"):
        build(tiny_recipe(source=str(source), target="vllm", precision="checkpoint"), tmp_path / "repository")
    assert not (tmp_path / "repository").exists()


def test_a_quantized_checkpoint_is_not_quantized_again(
    tiny: Path, tiny_recipe: Recipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builders.llm.quantization.quantize.has_modelopt", lambda: True)
    source = shutil.copytree(tiny, tmp_path / "source")
    config = json.loads((source / "config.json").read_bytes()) | {"quantization_config": {"quant_method": "awq"}}
    (source / "config.json").write_text(json.dumps(config))
    recipe = tiny_recipe(source=str(source), target="vllm", precision="checkpoint", checkpoint_quantization="fp8")
    with pytest.raises(UnsupportedModel, match="quantized already, in awq"):
        build(recipe, tmp_path / "repository")


class NoteRecorder(NullProgress):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_the_layout_of_nvidias_vllm_backend(tiny_recipe: Recipes, tmp_path: Path) -> None:
    progress = NoteRecorder()
    recipe = tiny_recipe(
        target="vllm",
        precision="checkpoint",
        layout="nvidia",
        served_name='Tiny "ß"',
        tool_call_parser="hermes",
        tensor_parallel=4,
        mounted_at="/models",
    )
    built = build(recipe, tmp_path / "repository", progress=progress)
    config = config_pbtxt.parse((built.folder / "config.pbtxt").read_text())
    assert (config.name, config.backend, len(config.input), len(config.parameters)) == ("tiny", "vllm", 0, 0)
    assert config.instance_group[0].kind == config.instance_group[0].KIND_MODEL
    arguments = json.loads((built.folder / "1" / "model.json").read_bytes())
    assert arguments == {
        "model": "/models/tiny/1/checkpoint",
        "dtype": "auto",
        "tensor_parallel_size": 4,
        "pipeline_parallel_size": 1,
        "max_model_len": 256,
        "max_num_seqs": 128,
    }
    written = (built.folder / "models.toml").read_text()
    assert any(written in note for note in progress.notes)
    described = models_file.read(built.folder / "models.toml")["tiny"]
    assert described["chat_template"] == TEMPLATE
    assert (described["served_name"], described["context_length"]) == ('Tiny "ß"', "256")
    assert (described["tool_call_parser"], described["owned_by"]) == ("hermes", "local")
    assert json.loads(described["control_tokens"]) == ["<s>", "</s>", "<|end|>"]


def test_the_layout_of_nvidias_llmapi_model(tiny_recipe: Recipes, container: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(target="llmapi", precision="checkpoint", layout="nvidia", templates=str(container))
    built = build(recipe, tmp_path / "repository")
    config = config_pbtxt.parse((built.folder / "config.pbtxt").read_text())
    assert (config.name, config.backend) == ("tiny", "python")
    assert [tensor.name for tensor in config.input] == ["text_input"]
    assert "max_batch_size" not in (built.folder / "config.pbtxt").read_text(), "its model.yaml says it"
    assert (built.folder / "1" / "helpers.py").read_text() == "# helpers.py of the container\n"
    arguments = yaml.safe_load((built.folder / "1" / "model.yaml").read_text())
    assert arguments["triton_config"] == {"max_batch_size": 0, "decoupled": True}
    assert (arguments["max_seq_len"], arguments["max_batch_size"]) == (256, 128)
    assert arguments["model"] == "/models/repository/tiny/1/checkpoint"
    assert models_file.read(built.folder / "models.toml")["tiny"]["context_length"] == "256"


def test_a_folder_that_is_not_the_containers_is_refused(tiny_recipe: Recipes, tmp_path: Path) -> None:
    recipe = tiny_recipe(target="llmapi", precision="checkpoint", layout="nvidia", templates=str(tmp_path))
    with pytest.raises(SourceUnavailable, match=r"not the folder llmapi .* 1/helpers\.py"):
        build(recipe, tmp_path / "repository")
