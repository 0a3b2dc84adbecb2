"""How to ask models that do not describe themselves: what their tensors show, and what the models file says.

A model's own parameters win, then those of the models file (`gateway.models_file`), then what is recognised here.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

from gateway.signatures import llmapi, tensorrt_llm, vllm
from gateway.triton import ModelConfig, Stop


class Layout(Protocol):
    """The tensors of a module of `gateway.signatures`: those that a model needs at least, with their datatypes."""

    INPUTS: Mapping[str, str]
    OUTPUTS: Mapping[str, str]


LAYOUTS: Mapping[str, Layout] = {"vllm": vllm, "llmapi": llmapi, "tensorrt_llm": tensorrt_llm}

# Their code reads prompts without a batch dimension only; the third takes both.
_UNBATCHED = frozenset({"vllm", "llmapi"})


def recognise(config: ModelConfig) -> str | None:
    """The signature that a model's tensors show, by their names and datatypes and the batch dimension alone."""
    for name, layout in LAYOUTS.items():
        tensors = ((config.inputs, layout.INPUTS), (config.outputs, layout.OUTPUTS))
        if config.max_batch_size and name in _UNBATCHED:
            continue
        if all(declared.get(tensor) == kind for declared, needed in tensors for tensor, kind in needed.items()):
            return name
    return None


def complement(config: ModelConfig, said: Mapping[str, str]) -> tuple[ModelConfig, str | None]:
    """Give a model the parameters that it lacks: what the models file has `said`, and what its tensors show.

    Returns it with a remark, where its keeper ought to know something. A model whose tensors show nothing has no
    parameter `signature`.
    """
    parameters = {**said, **config.parameters}
    remark = None
    if "signature" not in parameters and (signature := recognise(config)):
        parameters["signature"] = signature
        parameters.setdefault("owned_by", "triton")
    if "signature" in parameters and "operations" not in parameters:
        chats = "chat_template" in parameters
        parameters["operations"] = json.dumps(["chat", "complete"] if chats else ["complete"])
        if not chats:
            remark = (
                "it has no chat template, so it is offered for completion only; give it one in TRITONIC_MODELS_FILE: "
                f'[models."{config.name}"] with tokenizer_config, chat_template_file or chat_template'
            )
    return replace(config, parameters=parameters), remark


def is_step(name: str, configs: Mapping[str, ModelConfig]) -> bool:
    """Whether an ensemble among these models is made of this one."""
    return any(name in config.steps for config in configs.values())


def stop(config: ModelConfig, configs: Mapping[str, ModelConfig]) -> Stop | None:
    """How a request to an ensemble is stopped, see `tensorrt_llm.stop`. `configs` are the models of its server."""
    stops = (tensorrt_llm.stop(configs[step]) for step in config.steps if step in configs)
    return next(filter(None, stops), None)
