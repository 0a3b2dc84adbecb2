"""From an engine's folder to a running engine."""

from pathlib import Path

from tokenizers import Tokenizer

from backends.llm.batching.engine import BatchingEngine
from backends.llm.loading import Loaded
from backends.llm.options import Options
from backends.llm.ort.embedding import Embedding
from backends.llm.ort.model_files import read_model_files
from backends.llm.ort.runner import OrtForward


def load_engine(folder: Path, tokenizer: Tokenizer, options: Options) -> Loaded:
    """Start an onnxruntime engine. Raises `FileNotFoundError`, `ValueError`, or what onnxruntime raises."""
    files = read_model_files(folder)
    sight = None
    if files.takes_vectors:
        from backends.llm.vision.sight import load_sight  # only models that are shown pictures need Pillow

        sight = load_sight(folder, tokenizer, options.threads)
    forward = OrtForward(
        files,
        max_rows=options.max_rows,
        context_length=options.context_length or files.context_length,
        threads=options.threads,
        kv_memory=options.kv_memory,
        embed=Embedding(folder / "embedding.npy", sight.gallery) if sight else None,
    )
    engine = BatchingEngine(forward, tokenizer, files.eos, options.max_waiting, options.prefix_cache)
    return Loaded(engine, files.bos, files.eos, sight)
