"""The published layouts, written into a repository: `tensors.py` with the ensemble's steps and maps.

The engines are scripts: `models/` beside this file.
"""

import json
import shutil
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from tests.triton.foreign import tensors

_MODELS = Path(__file__).parent / "models"

# Maps from the tensors of each step to those of the ensemble. `_UNCHANGED` have the same name in both.
_PREPROCESSED = (
    *("INPUT_ID", "REQUEST_INPUT_LEN", "DECODER_INPUT_ID", "REQUEST_DECODER_INPUT_LEN", "REQUEST_OUTPUT_LEN"),
    *("STOP_WORDS_IDS", "BAD_WORDS_IDS", "EMBEDDING_BIAS"),
)
_UNCHANGED = (
    *("exclude_input_in_output", "temperature", "repetition_penalty", "min_tokens", "presence_penalty"),
    *("frequency_penalty", "seed", "return_log_probs", "return_context_logits", "return_generation_logits"),
    *("return_perf_metrics", "return_num_input_tokens", "return_num_output_tokens", "num_return_sequences"),
    *("beam_width", "prompt_embedding_table", "prompt_vocab_size", "lora_task_id", "lora_weights"),
    *(
        "lora_config",
        "guided_decoding_guide_type",
        "guided_decoding_guide",
    ),
)
_STEPS: list[tuple[str, dict[str, str], dict[str, str]]] = [
    (
        "preprocessing",
        {
            "QUERY": "text_input",
            "DECODER_QUERY": "decoder_text_input",
            "REQUEST_OUTPUT_LEN": "max_tokens",
            "BAD_WORDS_DICT": "bad_words",
            "STOP_WORDS_DICT": "stop_words",
            "EMBEDDING_BIAS_WORDS": "embedding_bias_words",
            "EMBEDDING_BIAS_WEIGHTS": "embedding_bias_weights",
            "END_ID": "end_id",
            "PAD_ID": "pad_id",
            "PROMPT_TABLE_EXTRA_ID": "prompt_table_extra_id",
        },
        {
            **{name: f"_{name}" for name in _PREPROCESSED},
            "OUT_END_ID": "_PREPROCESSOR_END_ID",
            "OUT_PAD_ID": "_PREPROCESSOR_PAD_ID",
            "OUT_PROMPT_TABLE_EXTRA_IDS": "_OUT_PROMPT_TABLE_EXTRA_IDS",
        },
    ),
    (
        "tensorrt_llm",
        {
            "input_ids": "_INPUT_ID",
            "decoder_input_ids": "_DECODER_INPUT_ID",
            "input_lengths": "_REQUEST_INPUT_LEN",
            "decoder_input_lengths": "_REQUEST_DECODER_INPUT_LEN",
            "request_output_len": "_REQUEST_OUTPUT_LEN",
            "end_id": "_PREPROCESSOR_END_ID",
            "pad_id": "_PREPROCESSOR_PAD_ID",
            "embedding_bias": "_EMBEDDING_BIAS",
            "runtime_top_k": "top_k",
            "runtime_top_p": "top_p",
            "len_penalty": "length_penalty",
            "streaming": "stream",
            "stop_words_list": "_STOP_WORDS_IDS",
            "bad_words_list": "_BAD_WORDS_IDS",
            "prompt_table_extra_ids": "_OUT_PROMPT_TABLE_EXTRA_IDS",
            **{name: name for name in _UNCHANGED},
        },
        {
            "output_ids": "_TOKENS_BATCH",
            "sequence_length": "_SEQUENCE_LENGTH",
            **{line.split()[0]: line.split()[0] for line in tensors.MEASURES.strip().splitlines()},
        },
    ),
    (
        "postprocessing",
        {"TOKENS_BATCH": "_TOKENS_BATCH", "SEQUENCE_LENGTH": "_SEQUENCE_LENGTH"},
        {"OUTPUT": "text_output"},
    ),
]


def install_llmapi(repository: Path, name: str, *, decoupled: bool = True, **options: object) -> None:
    """Install NVIDIA's llmapi/tensorrt_llm."""
    config = _config(name, tensors.LLMAPI_INPUTS, tensors.LLMAPI_OUTPUTS, decoupled=decoupled)
    _install(repository, config, "llmapi", options)


def install_mocks(repository: Path) -> None:
    """Install the models of NVIDIA's own tests, and two with only a prompt and a text."""
    for name, inputs, outputs in (
        ("mock_llm", tensors.MOCK_INPUTS, tensors.MOCK_OUTPUTS),
        ("counting_mock", tensors.COUNTING_MOCK_INPUTS, tensors.COUNTING_MOCK_OUTPUTS),
        ("barest", "text_input STRING 1,1", tensors.MOCK_OUTPUTS),
        ("barest_vllm", "text_input STRING 1,1", tensors.MOCK_OUTPUTS),
    ):
        _install(repository, _config(name, inputs, outputs, decoupled=True), "mock", {})


def install_vllm(repository: Path, name: str, *, release: str = "25.12", **options: object) -> None:
    """Install a model of the vLLM backend, with the tensors that it declares when it is loaded."""
    newer = float(release) > 25.10
    inputs = tensors.VLLM_INPUTS if newer else tensors.VLLM_INPUTS.replace("?embedding_request STRING 1\n", "")
    config = _config(name, inputs, tensors.VLLM_OUTPUTS, decoupled=True)
    _install(repository, config, "vllm", {"release": release, **options})


def install_inflight_batcher(repository: Path, *, decoupled: bool = True) -> None:
    """Install `ensemble`, `tensorrt_llm_bls`, their steps, and a `tensorrt_llm_bls` that accumulates tokens."""
    config = _config("preprocessing", tensors.PREPROCESSING_INPUTS, tensors.PREPROCESSING_OUTPUTS, batch=8)
    _install(repository, config, "preprocessing", {})
    config = _config(
        "postprocessing", "TOKENS_BATCH INT32 -1,-1\nSEQUENCE_LENGTH INT32 -1", "OUTPUT STRING -1", batch=8
    )
    _install(repository, config, "postprocessing", {})
    config = _config("tensorrt_llm", tensors.CORE_INPUTS, tensors.CORE_OUTPUTS, batch=8, decoupled=decoupled)
    _install(repository, config, "core", {})
    config = _config("ensemble", tensors.ENSEMBLE_INPUTS, tensors.TEXT_OUTPUTS, batch=8)
    config.ClearField("backend")
    config.ClearField("instance_group")
    config.platform = "ensemble"
    for model, inputs, outputs in _STEPS:
        step = config.ensemble_scheduling.step.add(model_name=model, model_version=-1)
        step.input_map.update(inputs)
        step.output_map.update(outputs)
    _install(repository, config, None, {})
    for name, accumulates in (("tensorrt_llm_bls", "false"), ("accumulating_bls", "true")):
        config = _config(name, tensors.BLS_INPUTS, tensors.TEXT_OUTPUTS, batch=8, decoupled=decoupled)
        _install(repository, config, "bls", {"accumulate_tokens": accumulates})


def journal(repository: Path) -> list[dict]:
    """Return the events that the models recorded: their inputs, and cancellations."""
    path = repository.parent / "journal.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _config(name: str, inputs: str, outputs: str, *, batch: int = 0, decoupled: bool = False) -> pb.ModelConfig:
    config = pb.ModelConfig(name=name, backend="python", max_batch_size=batch)
    config.model_transaction_policy.decoupled = decoupled
    config.instance_group.add(count=4 if "bls" in name else 1, kind=pb.ModelInstanceGroup.KIND_CPU)
    for lines, declared in ((inputs, config.input), (outputs, config.output)):
        for line in filter(None, lines.splitlines()):
            tensor, kind, dims = line.split()
            added = declared.add(name=tensor.lstrip("?"), data_type=pb.DataType.Value(f"TYPE_{kind}"))
            added.dims.extend([1] if dims == "~" else map(int, dims.split(",")))
            if tensor.startswith("?"):
                added.optional = True
            if dims == "~":
                added.reshape.SetInParent()
    return config


def _install(repository: Path, config: pb.ModelConfig, engine: str | None, options: dict[str, object]) -> None:
    folder = repository / config.name
    (folder / "1").mkdir(parents=True)
    for key, value in {**options, "journal": str(repository.parent / "journal.jsonl")}.items():
        if engine:
            config.parameters[key].string_value = str(value)
    if engine:
        shutil.copy(_MODELS / f"{engine}.py", folder / "1" / "model.py")
        shutil.copy(_MODELS / "script.py", folder / "1" / "script.py")
    # Triton wants a zero written; protobuf leaves it out because it is the default.
    zero = "" if config.max_batch_size else "max_batch_size: 0\n"
    (folder / "config.pbtxt").write_text(zero + text_format.MessageToString(config, as_utf8=True))
