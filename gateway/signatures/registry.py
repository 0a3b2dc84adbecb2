"""How to ask models that do not describe themselves: what their tensors show, and what the models file says.

A model's own parameters win, then those of the models file (`gateway.models.models_file`), then what is recognised
here.
"""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from gateway.errors import GatewayError
from gateway.prompting import bos_token, chat_template
from gateway.signatures import embedding, image, llmapi, tensorrt_llm, tensorrt_llm_stop, transcription, vllm
from gateway.triton.client import ModelConfig, StopRequest
from gateway.triton.tensors import InferResponse, Tensor


class Signature(Protocol):
    """A module of `gateway/signatures/`: how an operation travels in tensors.

    Chats are made texts before (`gateway.prompting.chat_prompt`): a signature carries `Complete` or `Embed`.

    Two more functions are there where they are needed. `unseen(request, config)`, of signatures that may ask for an
    answer in one piece, is how many tokens a model may be silent for. `instead(request, error, config)`, of those that
    learn from a refusal, is the request to ask then, or None.
    """

    INPUTS: Mapping[str, str]
    OUTPUTS: Mapping[str, str]

    def split_request(self, request: Any, config: ModelConfig) -> Sequence[Any]:
        """Return the requests to the model that one is asked as: several where each carries one answer alone."""
        ...

    def encode(self, request: Any, config: ModelConfig) -> list[Tensor]:
        """Return the tensors of a request. Raises `UnsupportedOption` for what they cannot carry."""
        ...

    def decode(self, request: Any, responses: AsyncIterator[InferResponse], config: ModelConfig) -> AsyncGenerator[Any]:
        """Yield the events that responses to `request` mean."""
        ...

    def check(self, parameters: Mapping[str, str]) -> None:
        """Raise `ValueError` when a model's parameters could not carry what it says it offers."""
        ...

    def explain(self, error: GatewayError) -> GatewayError:
        """Put a failure in the caller's terms."""
        ...


SIGNATURES: Mapping[str, Signature] = {
    "vllm": vllm,
    "embedding": embedding,
    "transcription": transcription,
    "image": image,
    "tensorrt_llm": tensorrt_llm,
    "llmapi": llmapi,
}

# Those that tensors can show, in the order in which they are tried.
_LAYOUTS = ("vllm", "llmapi", "tensorrt_llm")

# Tensors of which a model has at least one that is of the layout.
_DISTINCTIVE_TENSORS = {
    "vllm": vllm.DISTINCTIVE_INPUTS,
    "llmapi": llmapi.DISTINCTIVE_INPUTS,
    "tensorrt_llm": tensorrt_llm.DISTINCTIVE_INPUTS,
}

# How tensors begin that only the other two have.
_FOREIGN_PREFIXES = ("sampling_param", "streaming")

# What tensorrt_llm_bls asks for tokens, and what its parameters call no
# (inflight_batcher_llm/preprocessing/1/model.py).
_PREPROCESSING = "preprocessing"
_FALSE = frozenset({"false", "no", "0", "f", "n"})

# Their code reads prompts without a batch dimension only; the third takes both.
_UNBATCHED = frozenset({"vllm", "llmapi"})


def recognize(config: ModelConfig) -> str | None:
    """The signature that a model's tensors show, by their names and datatypes and the batch dimension alone.

    Only what a signature cannot do without has to be there, and what tells its layout from others.
    """
    for name in _LAYOUTS:
        layout = SIGNATURES[name]
        tensors = ((config.inputs, layout.INPUTS), (config.outputs, layout.OUTPUTS))
        if config.max_batch_size and name in _UNBATCHED:
            continue
        if name == "tensorrt_llm" and any(tensor.startswith(_FOREIGN_PREFIXES) for tensor in config.inputs):
            continue
        if not _DISTINCTIVE_TENSORS[name].items() & config.inputs.items():
            continue
        if all(declared.get(tensor) == kind for declared, needed in tensors for tensor, kind in needed.items()):
            return name
    return None


def complete_config(
    config: ModelConfig, said: Mapping[str, str], configs: Mapping[str, ModelConfig] = {}
) -> tuple[ModelConfig, str | None]:
    """Give a model the parameters that it lacks: what the models file has `said`, and what its tensors show.

    `configs` are the models of its server. Returns it with a remark, where its keeper ought to know something. A model
    whose tensors show nothing has no parameter `signature`.
    """
    parameters = {**said, **config.parameters}
    remark = None
    if "signature" not in parameters and (signature := recognize(config)):
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
    if bos_token.ADD_BOS_PARAMETER not in parameters and _adds_bos(config, parameters, configs):
        parameters[bos_token.ADD_BOS_PARAMETER] = "true"
    return replace(config, parameters=parameters), remark


def _adds_bos(config: ModelConfig, parameters: Mapping[str, str], configs: Mapping[str, ModelConfig]) -> bool:
    """Whether a back end puts `bos_token` before each prompt.

    Others' tokenise with special tokens, unless the model that does it for an engine of TensorRT-LLM is told not to.
    Whether `bos_token` is one of them is the tokenizer's to say. Where nobody has asked it, a template that names the
    token is of a checkpoint that begins with it. Our own never doubles it.
    """
    signature = parameters.get("signature")
    if signature not in _LAYOUTS or (signature == "vllm" and vllm.is_own_backend(config)):
        return False
    if signature == "tensorrt_llm":
        steps = (configs[name] for name in config.steps or (_PREPROCESSING,) if name in configs)
        if any(step.parameters.get("add_special_tokens", "").lower() in _FALSE for step in steps):
            return False
    if "tokenizer_adds_bos" in parameters:
        return parameters["tokenizer_adds_bos"] == "true"
    return "bos_token" in chat_template.variables(parameters.get("chat_template", ""))


def is_ensemble_step(name: str, configs: Mapping[str, ModelConfig]) -> bool:
    """Whether an ensemble among these models is made of this one."""
    return any(name in config.steps for config in configs.values())


def find_stop_request(config: ModelConfig, configs: Mapping[str, ModelConfig]) -> StopRequest | None:
    """How a request to an ensemble is stopped, see `tensorrt_llm.stop`. `configs` are the models of its server."""
    stops = (tensorrt_llm_stop.stop_request(configs[step]) for step in config.steps if step in configs)
    return next(filter(None, stops), None)
