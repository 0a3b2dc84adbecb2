"""Build a tiny text model with the real exporter: fetch, export, verify, install."""

import errno
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from builders import config_pbtxt, manifest, repository
from builders.build import BuildResult, build
from builders.checkpoint import Checkpoint, sha256
from builders.errors import (
    NotEnoughSpace,
    SourceUnavailable,
    UnsupportedModel,
    VerificationFailed,
)
from builders.llm import builder, export_step
from builders.progress import STAGES, NullProgress
from builders.recipe import Recipe
from tests.unit.builders.tiny_llama import TEMPLATE, make_checkpoint

Recipes = Callable[..., Recipe]


def contents(folder: Path) -> dict[str, str]:
    """Hash everything below a folder, hidden files too."""
    return {str(path.relative_to(folder)): sha256(path) for path in folder.rglob("*") if path.is_file()}


def use_engine_of(
    built: BuildResult, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None] = lambda _: None
) -> None:
    """Replace the exporter with a copy of an earlier build's engine, changed by `change`."""

    def export(
        checkpoint: Path, recipe: Recipe, folder: Path, scratch: Path, progress: object, *, vectors: bool
    ) -> None:
        shutil.copytree(built.folder / "1", folder)
        change(folder)

    monkeypatch.setattr(export_step, "export", export)


def corrupt(engine: Path) -> None:
    (engine / "model.onnx").write_bytes(b"not a model")


def perturb(engine: Path) -> None:
    """Damage weights as a faulty export would: finite, plausible, wrong."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(str(engine / "model.onnx"))
    weight = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * 1.3, weight.name))
    (engine / "model.onnx.data").unlink(missing_ok=True)
    onnx.save(model, str(engine / "model.onnx"))


def test_the_installed_model_is_complete(built: BuildResult, tiny: Path) -> None:
    assert built.is_new
    files = {path.name for path in (built.folder / "1").iterdir()}
    assert {"model.onnx", "genai_config.json", "tokenizer.json", "generation_config.json", "config.json"} <= files
    assert (built.folder / "1" / "tokenizer.json").read_bytes() == (tiny / "tokenizer.json").read_bytes()
    generation = json.loads((built.folder / "1" / "generation_config.json").read_bytes())
    assert generation["eos_token_id"] == [1, 2], "both the config's </s> and the tokenizer's <|end|> end an answer"
    assert {path.name for path in built.folder.parent.parent.iterdir()} == {"repository"}, (
        "nothing is left of the stage"
    )


def test_fp32_answers_as_the_source(built: BuildResult) -> None:
    assert built.metrics["identical_answers"] == built.metrics["prompts"] == 8
    assert built.metrics["divergence"] < 1e-6
    assert built.metrics["positions"] == 8 * 16


def test_build_json_names_the_model_and_its_source(built: BuildResult, tiny: Path, tiny_recipe: Recipes) -> None:
    record = json.loads((built.folder / manifest.FILE_NAME).read_bytes())
    assert record["source"] == str(tiny)
    assert record["recipe"] == tiny_recipe().model_dump(mode="json")
    assert record["verification"] == built.metrics
    assert record["versions"]["onnxruntime"] and record["versions"]["transformers"]
    listed = {name: file["sha256"] for name, file in record["files"].items()}
    assert listed == {name: hash for name, hash in contents(built.folder).items() if name != manifest.FILE_NAME}


def test_config_pbtxt_reads_back_with_the_template_byte_for_byte(built: BuildResult) -> None:
    text = (built.folder / "config.pbtxt").read_bytes().decode()
    assert "max_batch_size: 0" in text
    config = config_pbtxt.parse(text)
    parameters = {key: value.string_value for key, value in config.parameters.items()}
    assert parameters["chat_template"] == TEMPLATE
    assert json.loads(parameters["operations"]) == ["chat", "complete"]
    assert json.loads(parameters["special_tokens"]) == {"bos_token": "<s>", "eos_token": "<|end|>"}
    assert json.loads(parameters["control_tokens"]) == ["<s>", "</s>", "<|end|>"]
    assert parameters["special_tokens_in_content"] == "text"
    assert "literal_spans" in [tensor.name for tensor in config.input]
    assert json.loads(parameters["sampling_defaults"]) == {}
    assert (parameters["served_name"], parameters["signature"], parameters["engine"]) == ("tiny", "vllm", "onnxruntime")
    assert (parameters["context_length"], parameters["precision"], parameters["owned_by"]) == ("256", "fp32", "local")
    assert abs(int(parameters["created"]) - time.time()) < 3600
    assert "tool_call_parser" not in parameters
    assert (config.name, config.backend, config.max_batch_size) == ("tiny", "llm", 0)
    assert config.model_transaction_policy.decoupled
    assert [tensor.name for tensor in config.input if not tensor.optional] == []
    assert [tensor.name for tensor in config.output] == [
        "text_output",
        "finish_reason",
        "cumulative_logprob",
        "logprobs",
        "num_input_tokens",
        "num_output_tokens",
    ]


def test_building_twice_does_nothing(built: BuildResult, tiny_recipe: Recipes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder.LLMBuilder, "build", None)
    before = contents(built.folder)
    again = build(tiny_recipe(), built.folder.parent)
    assert not again.is_new
    assert again.metrics == built.metrics
    assert contents(built.folder) == before


def test_a_damaged_model_is_built_again(built: BuildResult, tiny_recipe: Recipes, tmp_path: Path) -> None:
    folder = shutil.copytree(built.folder, tmp_path / "repository" / "tiny")
    wanted = manifest.read(folder)
    assert wanted is not None
    assert manifest.is_current(folder, wanted["fingerprint"])
    (folder / "1" / "model.onnx").unlink()
    assert not manifest.is_current(folder, wanted["fingerprint"])


def test_other_weights_are_another_build(built: BuildResult, tiny_recipe: Recipes, tmp_path: Path) -> None:
    from builders.checkpoint import Checkpoint

    other = make_checkpoint(tmp_path / "tiny-llama", seed=2)
    assert Checkpoint(other).digest() != Checkpoint(Path(tiny_recipe().source)).digest()


def test_int8_replaces_fp32_and_stages_are_reported_in_order(
    built: BuildResult, tiny_recipe: Recipes, tmp_path: Path
) -> None:
    stages: list[str] = []

    class StageRecorder(NullProgress):
        def begin(self, stage: str, detail: str) -> None:
            stages.append(stage)

    folder = shutil.copytree(built.folder, tmp_path / "repository" / "tiny")
    before = contents(folder)
    int8 = tiny_recipe(precision="int8", context_length=128, tool_call_parser="hermes", served_name="Tiny")
    rebuilt = build(int8, folder.parent, progress=StageRecorder())
    assert stages == list(STAGES)
    assert rebuilt.is_new
    assert contents(folder) != before
    parameters = config_pbtxt.parse((folder / "config.pbtxt").read_text()).parameters
    assert parameters["precision"].string_value == "int8"
    assert parameters["context_length"].string_value == "128"
    assert parameters["tool_call_parser"].string_value == "hermes"
    assert parameters["served_name"].string_value == "Tiny"
    assert 0 < rebuilt.metrics["divergence"] < 0.02


@pytest.mark.parametrize(("precision", "product"), [("fp16", "MatMul"), ("int4", "MatMulNBits")])
def test_a_model_for_cuda_is_verified_with_the_kernels_of_the_cpu(
    precision: str, product: str, tiny_recipe: Recipes, tmp_path: Path
) -> None:
    import onnx

    # The random weights of the tiny model have no structure that four bits could keep.
    tolerance = {"divergence": 3.0, "agreement": 0.1} if precision == "int4" else None
    wanted = tiny_recipe(precision=precision, device="cuda", gpu=1, tolerance=tolerance)
    result = build(wanted, tmp_path / "repository")
    config = config_pbtxt.parse((result.folder / "config.pbtxt").read_text())
    (group,) = config.instance_group
    assert (group.kind, list(group.gpus), group.count) == (group.Kind.KIND_GPU, [1], 1)
    assert config.parameters["precision"].string_value == precision
    assert config.parameters["max_rows"].string_value == "32"
    record = json.loads((result.folder / manifest.FILE_NAME).read_bytes())
    assert record["verification"]["provider"] == "CPUExecutionProvider"
    if precision == "fp16":
        assert 0 < result.metrics["divergence"] < 1e-3
    graph = onnx.load(str(result.folder / "1" / "model.onnx"), load_external_data=False).graph
    caches = [value for value in graph.input if value.name.startswith("past_key_values.")]
    assert {value.type.tensor_type.elem_type for value in caches} == {onnx.TensorProto.FLOAT16} and len(caches) == 4
    operators = [node.op_type for node in graph.node]
    assert operators.count("GroupQueryAttention") == 2 and operators.count(product) == 11


def test_an_export_for_cuda_without_grouped_query_attention_is_refused(built: BuildResult) -> None:
    with pytest.raises(UnsupportedModel, match="no grouped-query attention in float16"):
        export_step._check_graph(built.folder / "1", "cuda")


def test_force_replaces_the_same_build(
    built: BuildResult, tiny_recipe: Recipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_engine_of(built, monkeypatch)
    folder = shutil.copytree(built.folder, tmp_path / "repository" / "tiny")
    (folder / "stray").write_text("from an older build")
    assert build(tiny_recipe(), folder.parent, force=True).is_new
    assert not (folder / "stray").exists()


def test_a_wrong_engine_is_refused_with_figures_and_leaves_no_trace(
    built: BuildResult, tiny_recipe: Recipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_engine_of(built, monkeypatch, perturb)
    folder = shutil.copytree(built.folder, tmp_path / "repository" / "tiny")
    before = contents(tmp_path)
    with pytest.raises(VerificationFailed, match=r"Divergence \d.* nats .* positions") as failure:
        build(tiny_recipe(), folder.parent, force=True)
    assert "nothing was installed" in str(failure.value)
    assert contents(tmp_path) == before


def test_an_engine_that_does_not_load_is_refused(
    built: BuildResult, tiny_recipe: Recipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_engine_of(built, monkeypatch, corrupt)
    with pytest.raises(VerificationFailed, match="onnxruntime cannot run the exported engine"):
        build(tiny_recipe(), tmp_path / "repository")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_first_build_leaves_no_repository(
    built: BuildResult, tiny_recipe: Recipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_engine_of(built, monkeypatch, perturb)
    with pytest.raises(VerificationFailed):
        build(tiny_recipe(), tmp_path / "repository")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
def test_a_failed_installation_leaves_the_repository_unchanged(
    built: BuildResult, tiny_recipe: Recipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    use_engine_of(built, monkeypatch)

    def fail(path: Path) -> None:
        raise error

    monkeypatch.setattr(repository, "_fsync", fail)
    folder = shutil.copytree(built.folder, tmp_path / "repository" / "tiny")
    before = contents(tmp_path)
    with pytest.raises(NotEnoughSpace if isinstance(error, OSError) else KeyboardInterrupt):
        build(tiny_recipe(), folder.parent, force=True)
    assert contents(tmp_path) == before


def test_a_base_model_supports_completion_only(
    built: BuildResult, tiny: Path, tiny_recipe: Recipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_engine_of(built, monkeypatch)
    folder = shutil.copytree(tiny, tmp_path / "base")
    (folder / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    model = build(tiny_recipe(source=str(folder)), tmp_path / "repository").folder
    parameters = config_pbtxt.parse((model / "config.pbtxt").read_text()).parameters
    assert parameters["operations"].string_value == '["complete"]'
    assert "chat_template" not in parameters


def test_a_checkpoint_without_a_tokenizer_is_refused_with_the_missing_files(
    tiny: Path, tiny_recipe: Recipes, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny, tmp_path / "mute", ignore=shutil.ignore_patterns("tokenizer*"))
    for name in ("vocab.json", "merges.txt"):
        with pytest.raises(SourceUnavailable, match=f"^{folder} has no tokenizer: it lacks tokenizer.json"):
            build(tiny_recipe(source=str(folder)), tmp_path / "repository")
        (folder / name).write_text("{}")
    Checkpoint(folder).check_tokenizer()
    assert not (tmp_path / "repository").exists()
