"""How to ask models that do not describe themselves: what their tensors show, and what the models file says.

A model's own parameters win, then those of the models file (`gateway.models_file`), then what is recognised here.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from gateway.signatures import llmapi, tensorrt_llm, vllm
from gateway.triton import ModelConfig


class Layout(Protocol):
    """The tensors of a module of `gateway.signatures`: those that a model needs at least, with their datatypes."""

    INPUTS: Mapping[str, str]
    OUTPUTS: Mapping[str, str]


LAYOUTS: Mapping[str, Layout] = {"vllm": vllm, "llmapi": llmapi, "tensorrt_llm": tensorrt_llm}

# Their code reads prompts without a batch dimension only; the third takes both.
_UNBATCHED = frozenset({"vllm", "llmapi"})


@dataclass(frozen=True, slots=True)
class Recognised:
    """A model as it can be asked: `remark` is what its keeper ought to know."""

    config: ModelConfig
    remark: str | None = None


def recognise(config: ModelConfig) -> str | None:
    """The signature that a model's tensors show, by their names and datatypes and the batch dimension alone."""
    for name, layout in LAYOUTS.items():
        tensors = ((config.inputs, layout.INPUTS), (config.outputs, layout.OUTPUTS))
        if config.max_batch_size and name in _UNBATCHED:
            continue
        if all(declared.get(tensor) == kind for declared, needed in tensors for tensor, kind in needed.items()):
            return name
    return None


def complement(config: ModelConfig, described: Mapping[str, str]) -> Recognised:
    """Give a model the parameters that it lacks: those of its entry in the models file, and what its tensors show.

    A model whose signature nobody knows is returned with what there is.
    """
    parameters = {**described, **config.parameters}
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
    return Recognised(replace(config, parameters=parameters), remark)


def subordinate(configs: Iterable[ModelConfig]) -> frozenset[str]:
    """The models that are steps of an ensemble: it is the one to ask."""
    return frozenset(step for config in configs for step in config.steps)
