"""Export the networks of a Whisper to ONNX, and share the weights of the two decoders.

`encoder.onnx` and `decoder.onnx` are traced. `decoder_align.onnx` is the decoder with other outputs: the logits of all
tokens and the alignment, without its cache. Both decoders keep their weights in `decoder.data`, each weight once.
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from builders.transcription import quantization
from builders.transcription.whisper_model import WhisperModel

ENCODER, DECODER, ALIGNER = "encoder.onnx", "decoder.onnx", "decoder_align.onnx"
SMALLEST_EXTERNAL_TENSOR = 1024
"""Bytes; smaller constants stay in the graph, where onnxruntime can fold them."""
OPSET = 18
WEIGHT_ALIGNMENT = 4096
"""Bytes: a page of memory. Weights start at multiples of it, so that onnxruntime maps them instead of copying."""


def cache_names(kind: str, layers: int) -> list[str]:
    """Return the names of a cache's tensors: `["past_key_0", "past_value_0", "past_key_1", …]`."""
    return [f"{kind}_{part}_{layer}" for layer in range(layers) for part in ("key", "value")]


def export(whisper: Any, model: WhisperModel, folder: Path, precision: str) -> None:
    """Export transformers' `whisper` into `folder`. Its weights are fp16 if `precision` is, and fp32 otherwise."""
    import onnx

    from builders.transcription.network import Decoder, Encoder

    encoder = _trace_encoder(Encoder(whisper, model).eval(), model)
    if precision == "int8":
        encoder = quantization.compress_encoder(encoder)
    move_weights(encoder, folder / "encoder.data")
    onnx.save(encoder, str(folder / ENCODER))
    del encoder

    decoder = _trace_decoder(Decoder(whisper, model).eval(), model)
    if precision == "int8":
        decoder = quantization.compress_decoder(decoder, model.vocab_size)
    move_weights(decoder, folder / "decoder.data")
    aligner = select_outputs(decoder, ["logits", "alignment"])
    onnx.save(aligner, str(folder / ALIGNER))
    decoder = select_outputs(decoder, ["logits", *cache_names("present", model.num_layers)])
    keep_last_logits(decoder)
    onnx.save(decoder, str(folder / DECODER))


def _trace_encoder(network: Any, model: WhisperModel) -> Any:
    import torch

    any_size = torch.export.Dim.AUTO
    mel = torch.zeros(2, model.num_mels, 2 * min(model.max_positions, 50))
    return _trace(network, (mel,), ["mel"], cache_names("cross", model.num_layers), {"mel": {0: any_size, 2: any_size}})


def _trace_decoder(network: Any, model: WhisperModel) -> Any:
    """Trace with two rows, three new tokens and five past ones: the exporter makes a constant of a size of 1."""
    import torch

    layers, heads, size = model.num_layers, model.num_heads, model.head_size
    any_size = torch.export.Dim.AUTO
    key, value = {0: any_size, 3: any_size}, {0: any_size, 2: any_size}

    def caches(length: int) -> tuple[Any, ...]:
        shapes = ((2, heads, size, length), (2, heads, length, size)) * layers
        return tuple(torch.zeros(shape) for shape in shapes)

    ids = torch.ones(2, 3, dtype=torch.int64)
    arguments = (ids, ids.clone(), torch.zeros(2, 1, 3, 8), caches(5), caches(min(model.max_positions, 70)))
    shapes = {
        "input_ids": {0: any_size, 1: any_size},
        "positions": {0: any_size, 1: any_size},
        "mask": {0: any_size, 2: any_size, 3: any_size},
        "past": (key, value) * layers,
        "cross": (key, value) * layers,
    }
    inputs = ["input_ids", "positions", "mask", *cache_names("past", layers), *cache_names("cross", layers)]
    outputs = ["logits", *cache_names("present", layers), "alignment"]
    return _trace(network, arguments, inputs, outputs, shapes)


def _trace(network: Any, arguments: tuple[Any, ...], inputs: list[str], outputs: list[str], shapes: Any) -> Any:
    import torch

    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            arguments,
            dynamo=True,
            opset_version=OPSET,
            input_names=inputs,
            output_names=outputs,
            dynamic_shapes=shapes,
            verbose=False,
        )
    return program.model_proto


def move_weights(graph: Any, path: Path) -> None:
    """Move the large weights of a graph to the file `path`, beside which the graph will lie."""
    from onnx import numpy_helper
    from onnx.external_data_helper import set_external_data

    with path.open("wb") as file:
        for weight in graph.graph.initializer:
            raw = weight.raw_data or numpy_helper.to_array(weight).tobytes()
            if len(raw) >= SMALLEST_EXTERNAL_TENSOR:
                file.write(bytes(-file.tell() % WEIGHT_ALIGNMENT))
                weight.raw_data = b""
                set_external_data(weight, path.name, file.tell(), len(raw))
                weight.ClearField("raw_data")
                file.write(raw)


def select_outputs(graph: Any, names: list[str]) -> Any:
    """Return a copy with these outputs alone, without the nodes and weights that they do not need."""
    import onnx

    chosen = onnx.ModelProto()
    chosen.CopyFrom(graph)
    outputs = {output.name: output for output in chosen.graph.output}
    needed, nodes = set(names), []
    for node in reversed(chosen.graph.node):
        if needed & set(node.output):
            needed |= set(node.input)
            nodes.append(node)
    weights = [weight for weight in chosen.graph.initializer if weight.name in needed]
    for field, values in (
        ("node", nodes[::-1]),
        ("initializer", weights),
        ("output", [outputs[name] for name in names]),
    ):
        copies = [type(value).FromString(value.SerializeToString()) for value in values]
        chosen.graph.ClearField(field)
        getattr(chosen.graph, field).extend(copies)
    return chosen


def keep_last_logits(graph: Any) -> None:
    """Change a decoder in place to project its last token alone: `logits` become [n, 1, vocabulary]."""
    from onnx import helper, numpy_helper

    nodes = graph.graph.node
    norm = max(place for place, node in enumerate(nodes) if node.op_type == "LayerNormalization")
    hidden = nodes[norm].output[0]
    for node in nodes:
        for place, name in enumerate(node.input):
            if name == hidden:
                node.input[place] = "last_hidden"
    bounds = {"last_start": -1, "last_end": np.iinfo(np.int64).max, "last_axis": 1}
    for name, value in bounds.items():
        graph.graph.initializer.append(numpy_helper.from_array(np.array([value], np.int64), name))
    nodes.insert(norm + 1, helper.make_node("Slice", [hidden, *bounds], ["last_hidden"]))
    (logits,) = (output for output in graph.graph.output if output.name == "logits")
    logits.type.tensor_type.shape.dim[1].Clear()
    logits.type.tensor_type.shape.dim[1].dim_value = 1
    # The exporter's shapes of the values in between are those of all tokens.
    del graph.graph.value_info[:]
