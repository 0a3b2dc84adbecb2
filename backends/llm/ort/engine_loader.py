"""Load an onnxruntime engine: the entry for `onnxruntime` in `engines.ENGINES`."""

from pathlib import Path

from tokenizers import Tokenizer

from backends.llm.batching.engine import BatchingEngine
from backends.llm.model_loader import LoadedModel
from backends.llm.ort.decoder_config import read_decoder_config
from backends.llm.ort.execution_device import device_of
from backends.llm.ort.model_runner import OrtModelRunner
from backends.llm.ort.options import OnnxRuntimeOptions
from backends.llm.ort.token_embeddings import TokenEmbeddings


def load_engine(folder: Path, tokenizer: Tokenizer, options: OnnxRuntimeOptions) -> LoadedModel:
    """Start an engine from a folder. Raises `FileNotFoundError`, `ValueError`, or what onnxruntime raises."""
    config = read_decoder_config(folder)
    vision_processor = None
    if config.takes_embeddings:
        # Imported here because only models that accept images need Pillow.
        from backends.llm.vision.processor import load_vision_processor

        vision_processor = load_vision_processor(folder, tokenizer, options.threads)
    runner = OrtModelRunner(
        config,
        max_rows=options.max_rows,
        context_length=options.context_length or config.context_length,
        threads=options.threads,
        kv_memory=options.kv_memory,
        prefix_cache=options.prefix_cache,
        embed=TokenEmbeddings(folder / "embedding.npy", vision_processor.feature_cache) if vision_processor else None,
        device=device_of(options.gpu),
    )
    engine = BatchingEngine(runner, tokenizer, config.eos, options.max_waiting, runner.prefix_cache_bytes)
    return LoadedModel(engine, config.bos, config.eos, vision_processor)
