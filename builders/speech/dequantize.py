"""Turn the dynamically quantized integer graph of Kokoro into a float graph, which runs faster on a CPU.

Each integer product takes a quantized activation, its scale, and weights with a zero point. The float graph takes the
activation itself with the scale 1. A bias that the integer graph divides by the scale and rounds is left unrounded.
LSTMs stay as they are.
"""

from pathlib import Path
from typing import Any

_ONE = "scale_of_float_activations"
_FLOAT_NODES = {"ConvInteger": "Conv", "MatMulInteger": "MatMul"}
_BIAS_NODES = ("Cast", "Floor", "Round", "Reshape")
_FLOAT, _INTEGERS = 1, (6, 7)


def dequantize(source: Path, target: Path) -> int:
    """Write the float graph of `source` to `target`; return the number of integer products that were replaced.

    Raises ValueError if the weights of a product are no constants.
    """
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(str(source))
    graph = model.graph
    constants = {each.name: each for each in graph.initializer}
    activations, weights, nodes, replaced = _activations(graph), {}, [], 0
    for node in graph.node:
        if node.op_type == "DynamicQuantizeLinear":
            continue
        if node.op_type not in _FLOAT_NODES:
            node.input[:] = [activations.get(name, name) for name in node.input]
            nodes.append(node)
            continue
        name = f"{node.input[1]}_float"
        if node.input[1] not in constants:
            raise ValueError(f"The weights of {node.name} are no constant.")
        if name not in weights:
            zero = numpy_helper.to_array(constants[node.input[3]]) if len(node.input) > 3 else np.uint8(0)
            if zero.size > 1 and node.op_type == "ConvInteger":
                zero = zero.reshape(-1, *[1] * (len(constants[node.input[1]].dims) - 1))
            array = numpy_helper.to_array(constants[node.input[1]]).astype(np.float32) - zero.astype(np.float32)
            weights[name] = numpy_helper.from_array(array, name)
        inputs = [activations.get(node.input[0], node.input[0]), name]
        attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        nodes.append(helper.make_node(_FLOAT_NODES[node.op_type], inputs, node.output, name=node.name, **attributes))
        replaced += 1
    _keep_biases_exact(nodes)
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [each for each in graph.initializer if each.name in used]
    del graph.initializer[:]
    graph.initializer.extend([*kept, *weights.values(), numpy_helper.from_array(np.float32(1), _ONE)])
    del graph.value_info[:]
    onnx.save(model, str(target))
    return replaced


def _activations(graph: Any) -> dict[str, str]:
    """Return what replaces the outputs of each quantization: the activation, and the scale 1."""
    replaced = {}
    for node in graph.node:
        if node.op_type == "DynamicQuantizeLinear":
            replaced[node.output[0]], replaced[node.output[1]] = node.input[0], _ONE
    return replaced


def _keep_biases_exact(nodes: list[Any]) -> None:
    """Let the biases that are added to the products be float, and not rounded."""
    producers = {name: node for node in nodes for name in node.output}
    products = {node.output[0] for node in nodes if node.op_type in _FLOAT_NODES.values()}
    for node in nodes:
        if node.op_type != "Add" or not products.intersection(node.input):
            continue
        for name in node.input:
            bias = producers.get(name)
            while bias is not None and bias.op_type in _BIAS_NODES:
                if bias.op_type == "Cast" and bias.attribute[0].i in _INTEGERS:
                    bias.attribute[0].i = _FLOAT
                elif bias.op_type in ("Floor", "Round"):
                    bias.op_type = "Identity"
                bias = producers.get(bias.input[0])
