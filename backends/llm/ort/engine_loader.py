"""From an engine's folder to a running engine."""

from pathlib import Path

from tokenizers import Tokenizer

from backends.llm.batching.engine import BatchingEngine
from backends.llm.model_loader import LoadedModel
from backends.llm.options import Options
from backends.llm.ort.decoder_config import read_decoder_config
from backends.llm.ort.model_runner import OrtModelRunner
from backends.llm.ort.token_embeddings import TokenEmbeddings


def load_engine(folder: Path, tokenizer: Tokenizer, options: Options) -> LoadedModel:
    """Start an onnxruntime engine. Raises `FileNotFoundError`, `ValueError`, or what onnxruntime raises."""
    files = read_decoder_config(folder)
    sight = None
    if files.takes_embeddings:
        from backends.llm.vision.processor import (
            load_vision_processor,  # only models that are shown pictures need Pillow
        )

        sight = load_vision_processor(folder, tokenizer, options.threads)
    forward = OrtModelRunner(
        files,
        max_rows=options.max_rows,
        context_length=options.context_length or files.context_length,
        threads=options.threads,
        kv_memory=options.kv_memory,
        embed=TokenEmbeddings(folder / "embedding.npy", sight.feature_cache) if sight else None,
    )
    engine = BatchingEngine(forward, tokenizer, files.eos, options.max_waiting, options.prefix_cache)
    return LoadedModel(engine, files.bos, files.eos, sight)
