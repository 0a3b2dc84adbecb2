"""The published tensors, written into a repository.

Names, datatypes, dimensions, which are optional, reshapes and maps are those of

- NVIDIA/TensorRT-LLM, triton_backend/all_models/inflight_batcher_llm/{tensorrt_llm_bls,ensemble,preprocessing,
  tensorrt_llm,postprocessing}/config.pbtxt (v1.2), with the template's places filled in: logits in FP32, prompt
  embeddings in FP16,
- NVIDIA/TensorRT-LLM, triton_backend/all_models/llmapi/tensorrt_llm/config.pbtxt (main),
- triton-inference-server/vllm_backend, src/model.py, `_auto_complete_inputs_and_outputs` (main).

The engines are scripts: `models/` beside this file.
"""

import json
import shutil
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

_MODELS = Path(__file__).parent / "models"

# One tensor a line: name, datatype, dimensions; "?" stands before optional ones, "~" for `reshape: { shape: [ ] }`.
_COMMON_INPUTS = """
?bad_words STRING -1
?stop_words STRING -1
?exclude_input_in_output BOOL 1
?end_id INT32 1
?pad_id INT32 1
?top_k INT32 1
?top_p FP32 1
?temperature FP32 1
?length_penalty FP32 1
?repetition_penalty FP32 1
?min_tokens INT32 1
?presence_penalty FP32 1
?frequency_penalty FP32 1
?seed UINT64 1
?beam_width INT32 1
?stream BOOL 1
?prompt_embedding_table FP16 -1,-1
?prompt_vocab_size INT32 1
?prompt_table_extra_id UINT64 1
?embedding_bias_words STRING -1
?embedding_bias_weights FP32 -1
?lora_weights FP16 -1,-1
?lora_config INT32 -1,3
?guided_decoding_guide_type STRING 1
?guided_decoding_guide STRING 1
"""
_FLAGS = (
    *("return_log_probs BOOL", "return_context_logits BOOL", "return_generation_logits BOOL"),
    *("return_perf_metrics BOOL", "return_num_input_tokens BOOL", "return_num_output_tokens BOOL"),
    *("num_return_sequences INT32", "lora_task_id UINT64"),
)

_ENSEMBLE_INPUTS = (
    "text_input STRING 1\n?decoder_text_input STRING 1\nmax_tokens INT32 1\n"
    + _COMMON_INPUTS
    + "\n".join(f"?{flag} 1" for flag in _FLAGS)
)
_BLS_INPUTS = (
    "text_input STRING 1\n?decoder_text_input STRING 1\n?image_input FP16 -1,3,-1,-1\n"
    "?image_bytes_input UINT8 -1,-1,-1,-1\n?image_url_input STRING 1\n?video_bytes_input UINT8 -1,-1,-1,-1\n"
    "max_tokens INT32 1\n?num_draft_tokens INT32 1\n?use_draft_logits BOOL ~\n"
    + _COMMON_INPUTS
    + "\n".join(f"?{flag} ~" for flag in _FLAGS)
)
_MEASURES = """
cum_log_probs FP32 -1
output_log_probs FP32 -1,-1
context_logits FP32 -1,-1
generation_logits FP32 -1,-1,-1
batch_index INT32 1
sequence_index INT32 1
kv_cache_alloc_new_blocks INT32 1
kv_cache_reused_blocks INT32 1
kv_cache_alloc_total_blocks INT32 1
arrival_time_ns INT64 1
first_scheduled_time_ns INT64 1
first_token_time_ns INT64 1
last_token_time_ns INT64 1
acceptance_rate FP32 1
total_accepted_draft_tokens INT32 1
total_draft_tokens INT32 1
num_input_tokens INT32 1
num_output_tokens INT32 1
"""
_TEXT_OUTPUTS = "text_output STRING -1\n" + _MEASURES

_PREPROCESSING_INPUTS = """
QUERY STRING 1
?DECODER_QUERY STRING 1
?IMAGE_BYTES UINT8 -1,-1,-1,-1
?IMAGE_URL STRING 1
?IMAGES STRING -1
?VIDEO_BYTES UINT8 -1,-1,-1,-1
REQUEST_OUTPUT_LEN INT32 1
?BAD_WORDS_DICT STRING -1
?STOP_WORDS_DICT STRING -1
?EMBEDDING_BIAS_WORDS STRING -1
?EMBEDDING_BIAS_WEIGHTS FP32 -1
?END_ID INT32 1
?PAD_ID INT32 1
?PROMPT_TABLE_EXTRA_ID UINT64 1
"""
_PREPROCESSING_OUTPUTS = """
INPUT_ID INT32 -1
REQUEST_INPUT_LEN INT32 1
DECODER_INPUT_ID INT32 -1
REQUEST_DECODER_INPUT_LEN INT32 1
BAD_WORDS_IDS INT32 2,-1
STOP_WORDS_IDS INT32 2,-1
EMBEDDING_BIAS FP32 -1
REQUEST_OUTPUT_LEN INT32 -1
OUT_END_ID INT32 1
OUT_PAD_ID INT32 1
OUT_PROMPT_TABLE_EXTRA_IDS UINT64 -1
"""
_CORE_INPUTS = """
?input_ids INT32 -1
input_lengths INT32 ~
request_output_len INT32 ~
?num_return_sequences INT32 ~
?decoder_input_ids INT32 -1
?decoder_input_lengths INT32 ~
?end_id INT32 ~
?pad_id INT32 ~
?stop_words_list INT32 2,-1
?bad_words_list INT32 2,-1
?embedding_bias FP32 -1
?beam_width INT32 ~
?temperature FP32 ~
?runtime_top_k INT32 ~
?runtime_top_p FP32 ~
?len_penalty FP32 ~
?repetition_penalty FP32 ~
?min_tokens INT32 ~
?presence_penalty FP32 ~
?frequency_penalty FP32 ~
?seed UINT64 ~
?return_log_probs BOOL ~
?return_context_logits BOOL ~
?return_generation_logits BOOL ~
?return_perf_metrics BOOL ~
?return_num_input_tokens BOOL ~
?return_num_output_tokens BOOL ~
?exclude_input_in_output BOOL ~
?stop BOOL ~
?streaming BOOL ~
?prompt_embedding_table FP16 -1,-1
?prompt_table_extra_ids UINT64 -1
?prompt_vocab_size INT32 ~
?lora_task_id UINT64 ~
?lora_weights FP16 -1,-1
?lora_config INT32 -1,3
?guided_decoding_guide_type STRING 1
?guided_decoding_guide STRING 1
"""
_CORE_OUTPUTS = "output_ids INT32 -1,-1\nsequence_length INT32 -1\n" + _MEASURES

_LLMAPI_INPUTS = """
text_input STRING -1
?image_url STRING -1
?streaming BOOL 1
?sampling_param_best_of INT32 1
?sampling_param_temperature FP32 1
?sampling_param_top_k INT32 1
?sampling_param_top_p FP32 1
?sampling_param_frequency_penalty FP32 1
?sampling_param_presence_penalty FP32 1
?sampling_param_max_tokens INT32 1
?sampling_param_stop STRING -1
?sampling_param_seed UINT64 1
?sampling_param_exclude_input_from_output BOOL 1
?sampling_param_return_perf_metrics BOOL 1
?return_finish_reason BOOL 1
?return_stop_reason BOOL 1
?return_cumulative_logprob BOOL 1
?stop BOOL 1
?lora_id UINT64 1
?lora_name STRING 1
?lora_path STRING 1
?lora_ckpt_source STRING 1
"""
_LLMAPI_OUTPUTS = """
text_output STRING -1
finish_reason STRING -1
stop_reason STRING -1
cumulative_logprob FP32 -1
kv_cache_reused_block INT32 -1
kv_cache_missed_block INT32 -1
kv_cache_alloc_new_blocks INT32 -1
kv_cache_alloc_total_blocks INT32 -1
kv_cache_hit_rate FP32 -1
arrival_time_ns INT64 1
first_scheduled_time_ns INT64 1
first_token_time_ns INT64 1
last_token_time_ns INT64 1
acceptance_rate FP32 1
total_accepted_draft_tokens INT32 1
total_draft_tokens INT32 1
"""
_VLLM_INPUTS = """
text_input STRING 1
?image STRING -1
?stream BOOL 1
?sampling_parameters STRING 1
?exclude_input_in_output BOOL 1
?return_finish_reason BOOL 1
?return_cumulative_logprob BOOL 1
?return_logprobs BOOL 1
?return_num_input_tokens BOOL 1
?return_num_output_tokens BOOL 1
?embedding_request STRING 1
"""
_VLLM_OUTPUTS = """
text_output STRING -1
finish_reason STRING -1
cumulative_logprob FP32 -1
logprobs STRING -1
num_input_tokens UINT32 1
num_output_tokens UINT32 -1
"""

# What each step of the ensemble calls what the ensemble has. Names that are the same in both stand alone.
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
            **{line.split()[0]: line.split()[0] for line in _MEASURES.strip().splitlines()},
        },
    ),
    (
        "postprocessing",
        {"TOKENS_BATCH": "_TOKENS_BATCH", "SEQUENCE_LENGTH": "_SEQUENCE_LENGTH"},
        {"OUTPUT": "text_output"},
    ),
]


def install_llmapi(repository: Path, name: str, *, decoupled: bool = True, **options: object) -> None:
    """NVIDIA's llmapi/tensorrt_llm."""
    config = _config(name, _LLMAPI_INPUTS, _LLMAPI_OUTPUTS, decoupled=decoupled)
    _install(repository, config, "llmapi", options)


def install_vllm(repository: Path, name: str) -> None:
    """The vLLM backend, as its models describe themselves once they are loaded."""
    _install(repository, _config(name, _VLLM_INPUTS, _VLLM_OUTPUTS, decoupled=True), "vllm", {})


def install_inflight_batcher(repository: Path, *, decoupled: bool = True) -> None:
    """The models that `ensemble` and `tensorrt_llm_bls` are made of, and these two; another that accumulates tokens."""
    config = _config("preprocessing", _PREPROCESSING_INPUTS, _PREPROCESSING_OUTPUTS, batch=8)
    _install(repository, config, "preprocessing", {})
    config = _config(
        "postprocessing", "TOKENS_BATCH INT32 -1,-1\nSEQUENCE_LENGTH INT32 -1", "OUTPUT STRING -1", batch=8
    )
    _install(repository, config, "postprocessing", {})
    config = _config("tensorrt_llm", _CORE_INPUTS, _CORE_OUTPUTS, batch=8, decoupled=decoupled)
    _install(repository, config, "core", {})
    config = _config("ensemble", _ENSEMBLE_INPUTS, _TEXT_OUTPUTS, batch=8)
    config.ClearField("backend")
    config.ClearField("instance_group")
    config.platform = "ensemble"
    for model, inputs, outputs in _STEPS:
        step = config.ensemble_scheduling.step.add(model_name=model, model_version=-1)
        step.input_map.update(inputs)
        step.output_map.update(outputs)
    _install(repository, config, None, {})
    for name, accumulates in (("tensorrt_llm_bls", "false"), ("accumulating_bls", "true")):
        config = _config(name, _BLS_INPUTS, _TEXT_OUTPUTS, batch=8, decoupled=decoupled)
        _install(repository, config, "bls", {"accumulate_tokens": accumulates})


def journal(repository: Path) -> list[dict]:
    """What the models wrote down: their inputs, and that somebody hung up."""
    path = repository.parent / "journal.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _config(name: str, inputs: str, outputs: str, *, batch: int = 0, decoupled: bool = False) -> pb.ModelConfig:
    config = pb.ModelConfig(name=name, backend="python", max_batch_size=batch)
    config.model_transaction_policy.decoupled = decoupled
    config.instance_group.add(count=4 if "bls" in name else 1, kind=pb.ModelInstanceGroup.KIND_CPU)
    for lines, tensors in ((inputs, config.input), (outputs, config.output)):
        for line in filter(None, lines.splitlines()):
            tensor, kind, dims = line.split()
            added = tensors.add(name=tensor.lstrip("?"), data_type=pb.DataType.Value(f"TYPE_{kind}"))
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
