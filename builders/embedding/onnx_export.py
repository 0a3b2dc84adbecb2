"""Export a sentence-transformers model as one ONNX graph, with pooling and normalisation."""

from pathlib import Path
from typing import Any

from builders.checkpoint import Checkpoint
from builders.embedding import sentence_model
from builders.recipe import EMBEDDING_QUANTIZATIONS, Precision, Quantization

INPUTS, OUTPUT = ("input_ids", "lengths"), "sentence_embedding"
"""int64[texts, tokens] padded on the right, int32[texts]; float32[texts, dimensions]."""

MAX_INLINE_WEIGHT_BYTES = 1_800_000_000
"""Larger weights go to a file of their own: protobuf is limited to 2 GB."""


def export(folder: str | Path, output: str | Path, precision: Precision, plain_attention: bool = False) -> None:
    """Export the model in `folder` as `output/model.onnx`; large weights go to `output/model.onnx.data`.

    With `plain_attention` the graph has operators of ONNX alone. Raises what PyTorch's exporter raises.
    """
    import onnx

    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    model = sentence_model.read(Checkpoint(Path(folder)))
    path = output / "model.onnx"
    half, fused = precision == "fp16", not plain_attention
    try:
        transformer = _export(model, path, fused=fused, half=half)
    except Exception as error:  # the exporter wraps the errors of our attention in its own
        if not fused:
            raise
        print(f"Exporting with the usual attention: {error}"[:500])  # noqa: T201 - the build reads it
        transformer = _export(model, path, fused=False, half=half)
    graph = onnx.load(str(path))
    if precision in EMBEDDING_QUANTIZATIONS:
        graph = _compress(graph, EMBEDDING_QUANTIZATIONS[precision])
    graph.metadata_props.add(key="vocab_size", value=str(transformer.get_input_embeddings().weight.shape[0]))
    path.unlink()
    (output / "model.onnx.data").unlink(missing_ok=True)
    external = graph.ByteSize() > MAX_INLINE_WEIGHT_BYTES
    onnx.save(graph, str(path), save_as_external_data=external, location="model.onnx.data")


def _export(model: sentence_model.SentenceModel, path: Path, *, fused: bool, half: bool) -> Any:
    import torch

    from builders.embedding.network import ATTENTION_NAME, SentenceNetwork, UnsupportedAttention, load_transformer

    dtype = torch.float16 if half else torch.float32
    transformer = load_transformer(model, ATTENTION_NAME if fused else "eager", dtype)
    if fused and not type(transformer)._supports_attention_backend:
        raise UnsupportedAttention(f"{type(transformer).__name__} has an attention of its own.")
    transformer.config.use_cache = False
    network = SentenceNetwork(model, transformer).eval()
    ids, counts = torch.ones((3, 7), dtype=torch.int64), torch.tensor([7, 4, 6], dtype=torch.int32)
    texts, tokens = (
        torch.export.Dim("texts", min=1, max=4096),
        torch.export.Dim("tokens", min=1, max=model.max_positions),
    )
    size = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    with torch.inference_mode():
        torch.onnx.export(
            network,
            (ids, counts),
            str(path),
            dynamo=True,
            input_names=list(INPUTS),
            output_names=[OUTPUT],
            dynamic_shapes=({0: texts, 1: tokens}, {0: texts}),
            external_data=size > MAX_INLINE_WEIGHT_BYTES,
            verbose=False,
        )
    return transformer


def _compress(graph: Any, quantization: Quantization) -> Any:
    """Compress the matrices to int8; at run time activations are quantised too, per row and block."""
    from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

    config = DefaultWeightOnlyQuantConfig(
        block_size=quantization.block_size,
        is_symmetric=quantization.symmetric,
        accuracy_level=quantization.accuracy_level,
        bits=8,
    )
    quantizer = MatMulNBitsQuantizer(graph, algo_config=config)
    quantizer.process()
    return quantizer.model.model
