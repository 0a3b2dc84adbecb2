"""Quantise a checkpoint with ModelOpt; runs in an isolated process, see `builders.subprocess_step`.

It imports nothing of ours, so that the Python of another environment can run it: ModelOpt wants other releases of
transformers than the exporters do.
"""

from pathlib import Path
from typing import Any

TOKENS_PER_TEXT = 512


def quantize(
    source: str,
    output: str,
    config: str | None,
    fp8_kv_cache: bool,
    texts: list[str],
    tensorrt_llm: dict[str, Any] | None = None,
    dtype: str = "auto",
) -> dict[str, str]:
    """Quantise the checkpoint in the folder `source` into the folder `output`; return the versions of the packages.

    `config` names a configuration of ModelOpt; None leaves the weights as they are. Its scales are measured with
    `texts`. The output has Hugging Face's layout, or with `tensorrt_llm` that of TensorRT-LLM: `decoder_type`,
    `tensor_parallel` and `pipeline_parallel`. Raises what ModelOpt, torch and transformers raise.
    """
    import modelopt
    import modelopt.torch.quantization as mtq
    import torch
    import transformers

    print("loading the source model", flush=True)  # noqa: T201 - the build reads these lines
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = transformers.AutoModelForCausalLM.from_pretrained(
        source, dtype=dtype, local_files_only=True, use_safetensors=True, trust_remote_code=False
    )
    model = model.to(device).eval()
    if config is not None:
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, local_files_only=True, trust_remote_code=False)
        settings = getattr(mtq, config)
        if fp8_kv_cache:
            settings = mtq.update_quant_cfg_with_kv_cache_quant(settings, mtq.FP8_KV_CFG["quant_cfg"])

        def calibrate(model: Any) -> None:
            for number, text in enumerate(texts):
                print(f"calibrating with text {number + 1} of {len(texts)}", flush=True)  # noqa: T201
                tokens = tokenizer(text, return_tensors="pt", truncation=True, max_length=TOKENS_PER_TEXT)
                with torch.inference_mode():
                    model(input_ids=tokens["input_ids"].to(device))

        model = mtq.quantize(model, settings, calibrate)
    print("writing the quantized checkpoint", flush=True)  # noqa: T201
    Path(output).mkdir(parents=True, exist_ok=True)
    if tensorrt_llm is None:
        from modelopt.torch.export import export_hf_checkpoint

        export_hf_checkpoint(model, export_dir=output)
    else:
        from modelopt.torch.export import export_tensorrt_llm_checkpoint

        number_format = model.dtype if model.dtype in (torch.float16, torch.bfloat16) else torch.bfloat16
        export_tensorrt_llm_checkpoint(
            model,
            tensorrt_llm["decoder_type"],
            number_format,
            output,
            inference_tensor_parallel=tensorrt_llm["tensor_parallel"],
            inference_pipeline_parallel=tensorrt_llm["pipeline_parallel"],
        )
    return {
        "nvidia-modelopt": modelopt.__version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
