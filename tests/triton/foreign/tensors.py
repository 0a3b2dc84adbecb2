"""The published tensors, a line each.

Names, datatypes, dimensions, which are optional, and reshapes are those of

- NVIDIA/TensorRT-LLM, triton_backend/all_models/inflight_batcher_llm/{tensorrt_llm_bls,ensemble,preprocessing,
  tensorrt_llm,postprocessing}/config.pbtxt (v1.2), with the template's places filled in: logits in FP32, prompt
  embeddings in FP16,
- NVIDIA/TensorRT-LLM, triton_backend/all_models/llmapi/tensorrt_llm/config.pbtxt (main),
- triton-inference-server/server, python/openai/tests: test_models/mock_llm and tool_parser_models/tool_stream_py,
- triton-inference-server/vllm_backend, src/model.py, `_auto_complete_inputs_and_outputs` (main).
"""

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

ENSEMBLE_INPUTS = (
    "text_input STRING 1\n?decoder_text_input STRING 1\nmax_tokens INT32 1\n"
    + _COMMON_INPUTS
    + "\n".join(f"?{flag} 1" for flag in _FLAGS)
)
BLS_INPUTS = (
    "text_input STRING 1\n?decoder_text_input STRING 1\n?image_input FP16 -1,3,-1,-1\n"
    "?image_bytes_input UINT8 -1,-1,-1,-1\n?image_url_input STRING 1\n?video_bytes_input UINT8 -1,-1,-1,-1\n"
    "max_tokens INT32 1\n?num_draft_tokens INT32 1\n?use_draft_logits BOOL ~\n"
    + _COMMON_INPUTS
    + "\n".join(f"?{flag} ~" for flag in _FLAGS)
)
MEASURES = """
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
TEXT_OUTPUTS = "text_output STRING -1\n" + MEASURES

PREPROCESSING_INPUTS = """
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
PREPROCESSING_OUTPUTS = """
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
CORE_INPUTS = """
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
CORE_OUTPUTS = "output_ids INT32 -1,-1\nsequence_length INT32 -1\n" + MEASURES

LLMAPI_INPUTS = """
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
LLMAPI_OUTPUTS = """
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
VLLM_INPUTS = """
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
VLLM_OUTPUTS = """
text_output STRING -1
finish_reason STRING -1
cumulative_logprob FP32 -1
logprobs STRING -1
num_input_tokens UINT32 1
num_output_tokens UINT32 -1
"""

MOCK_INPUTS = """
text_input STRING 1,1
stream BOOL 1,1
?return_logprobs BOOL 1,1
"""
MOCK_OUTPUTS = "text_output STRING 1,-1"
COUNTING_MOCK_INPUTS = """
text_input STRING 1,1
stream BOOL 1,1
?max_tokens INT32 1,1
?return_num_input_tokens BOOL 1,1
?return_num_output_tokens BOOL 1,1
?stop_words STRING 1,-1
?temperature FP32 1,1
?top_p FP32 1,1
?frequency_penalty FP32 1,1
?presence_penalty FP32 1,1
?seed UINT64 1,1
?guided_decoding_guide_type STRING 1,1
?guided_decoding_guide STRING 1,1
"""
COUNTING_MOCK_OUTPUTS = "text_output STRING 1,-1\nnum_input_tokens INT32 1,1\nnum_output_tokens INT32 1,1"
