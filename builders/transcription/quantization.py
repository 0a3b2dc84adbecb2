"""Compress the matrices of a Whisper's networks to int8.

Two forms are used. A *block* has one scale for each 64 weights of a column, and activations are quantised per row and
block at run time (`MatMulNBits`). A *dynamic* matrix has one scale for each column, and one scale for all activations
(`MatMulInteger`): it is faster for the encoder's many rows, and inexact where a few activations are large. In a Whisper
these are the inputs of the second matrix of each feed-forward layer. docs/models.md has the measurements.
"""

import logging
from typing import Any

import numpy as np

from builders.recipe import QUANTIZATIONS

DYNAMIC_AFTER = ("LayerNormalization", "MultiHeadAttention")
"""Operators whose outputs are even enough for one scale. The second matrix of a feed-forward layer follows a GELU."""


def fold_transposes(graph: Any) -> None:
    """Transpose the weights that the graph transposes, in place."""
    from onnx import numpy_helper

    weights = {weight.name: weight for weight in graph.graph.initializer}
    for node in list(graph.graph.node):
        if node.op_type == "Transpose" and node.input[0] in weights:
            (order,) = (list(attribute.ints) for attribute in node.attribute if attribute.name == "perm")
            array = numpy_helper.to_array(weights[node.input[0]]).transpose(order)
            graph.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), node.output[0]))
            graph.graph.node.remove(node)
    _remove_unused_weights(graph)


def to_dynamic(graph: Any, names: set[str]) -> None:
    """Change the named `MatMul` nodes, whose second input is a weight, to dynamic int8 in place."""
    from onnx import helper, numpy_helper

    weights = {weight.name: weight for weight in graph.graph.initializer}
    quantized: set[str] = set()
    nodes = []
    for node in graph.graph.node:
        if node.name not in names:
            nodes.append(node)
            continue
        activation, weight = node.input
        if activation not in quantized:
            quantized.add(activation)
            outputs = [f"{activation}_{part}" for part in ("quantized", "scale", "zero_point")]
            nodes.append(helper.make_node("DynamicQuantizeLinear", [activation], outputs))
        array = numpy_helper.to_array(weights[weight]).astype(np.float32)
        scale = np.maximum(np.abs(array).max(0), np.finfo(np.float32).tiny) / 127
        for name, values in (
            (f"{weight}_quantized", np.rint(array / scale).astype(np.int8)),
            (f"{weight}_scale", scale.astype(np.float32)),
        ):
            if name not in weights:
                graph.graph.initializer.append(numpy_helper.from_array(values, name))
        out = node.output[0]
        # onnxruntime fuses this chain, with the addition of a bias after it, into one kernel.
        nodes += [
            helper.make_node(
                "MatMulInteger",
                [f"{activation}_quantized", f"{weight}_quantized", f"{activation}_zero_point"],
                [f"{out}_integer"],
            ),
            helper.make_node("Cast", [f"{out}_integer"], [f"{out}_float"], to=1),
            helper.make_node("Mul", [f"{activation}_scale", f"{weight}_scale"], [f"{out}_scale"]),
            helper.make_node("Mul", [f"{out}_float", f"{out}_scale"], [out]),
        ]
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
    graph.graph.ClearField("node")
    graph.graph.node.extend(copies)
    _remove_unused_weights(graph)


def to_blocks(graph: Any) -> Any:
    """Return the graph with the remaining matrices in blocks of int8."""
    from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

    form = QUANTIZATIONS["int8"]
    logging.getLogger("onnxruntime.quantization.matmul_nbits_quantizer").setLevel(logging.WARNING)
    config = DefaultWeightOnlyQuantConfig(
        block_size=form.block_size, is_symmetric=form.symmetric, accuracy_level=form.accuracy_level, bits=8
    )
    quantizer = MatMulNBitsQuantizer(graph, algo_config=config)
    quantizer.process()
    return quantizer.model.model


def compress_encoder(graph: Any) -> Any:
    """Return the encoder in int8: dynamic, the second matrices of the feed-forward layers in blocks."""
    fold_transposes(graph)
    weights = {weight.name for weight in graph.graph.initializer}
    producers = {name: node.op_type for node in graph.graph.node for name in node.output}
    names = {
        node.name
        for node in graph.graph.node
        if node.op_type == "MatMul" and node.input[1] in weights and producers.get(node.input[0]) in DYNAMIC_AFTER
    }
    to_dynamic(graph, names)
    return to_blocks(graph)


def compress_decoder(graph: Any, vocab_size: int) -> Any:
    """Return the decoder in blocks of int8. The embedding, of which each token reads one row, becomes fp16."""
    fold_transposes(graph)
    _halve_embedding(graph, vocab_size)
    return to_blocks(graph)


def _halve_embedding(graph: Any, vocab_size: int) -> None:
    from onnx import helper, numpy_helper

    weights = {weight.name: weight for weight in graph.graph.initializer}
    for place, node in enumerate(graph.graph.node):
        weight = weights.get(node.input[0]) if node.op_type == "Gather" else None
        if weight is not None and weight.dims[0] == vocab_size:
            array = numpy_helper.to_array(weight).astype(np.float16)
            weight.CopyFrom(numpy_helper.from_array(array, weight.name))
            out = node.output[0]
            node.output[0] = f"{out}_fp16"
            graph.graph.node.insert(place + 1, helper.make_node("Cast", [f"{out}_fp16"], [out], to=1))
            break


def _remove_unused_weights(graph: Any) -> None:
    used = {name for node in graph.graph.node for name in node.input}
    for weight in [weight for weight in graph.graph.initializer if weight.name not in used]:
        graph.graph.initializer.remove(weight)
