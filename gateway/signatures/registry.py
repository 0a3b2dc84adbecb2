"""The known signatures, and the recognition of models that do not describe themselves.

A new signature is a module of this package and a line in `_NAMES`.

The model's own parameters take precedence, then those of the models file (`gateway.models.models_file`), then those
that are recognised here.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module

from gateway.model_card import card
from gateway.operations.chat import Chat
from gateway.operations.complete import Complete
from gateway.prompting import chat_template
from gateway.signatures.call import Signature
from gateway.triton.client import StopRequest
from gateway.triton.model_config import ModelConfig

_NAMES = (
    "vllm",
    "llmapi",
    "tensorrt_llm",
    "embedding",
    "transcription",
    "whisper_bls",
    "image",
    "video",
    "upscaling",
    "speech",
    "face_swap",
    "voice_cloning",
)
"""Modules of this package, each with a `SIGNATURE`, in the order in which a model's tensors are compared with them."""

SIGNATURES: Mapping[str, Signature] = {name: import_module(f"{__package__}.{name}").SIGNATURE for name in _NAMES}
"""Every signature by its name, which is the value of the parameter `signature` of a model."""

RECOGNIZED_SIGNATURES = tuple(name for name, signature in SIGNATURES.items() if signature.distinctive_inputs)
"""Names of the signatures that a model's tensors can show."""


def recognize(config: ModelConfig) -> str | None:
    """Return the signature that a model's tensors show, by their names, their datatypes and the batch dimension.

    The model must have the tensors that the signature requires and one that distinguishes it from the others.
    """
    return next((name for name in RECOGNIZED_SIGNATURES if _matches(config, SIGNATURES[name])), None)


def _matches(config: ModelConfig, signature: Signature) -> bool:
    if config.max_batch_size and not signature.allows_batching:
        return False
    if signature.foreign_prefixes and any(name.startswith(signature.foreign_prefixes) for name in config.inputs):
        return False
    if not signature.distinctive_inputs.items() & config.inputs.items():
        return False
    return signature.inputs.items() <= config.inputs.items() and signature.outputs.items() <= config.outputs.items()


def complete_config(
    config: ModelConfig, described: card.Parameters, configs: Mapping[str, ModelConfig] = {}
) -> tuple[ModelConfig, str | None]:
    """Add the parameters that a model lacks: those of the models file, and those that its tensors show.

    `described` are its parameters in the models file, `configs` the models of its server by name. Returns the
    configuration with these parameters, and a remark for the log or None. If no signature matches the tensors, the
    parameter `signature` stays absent.
    """
    parameters = {**described, **config.parameters}
    remark = None
    if "signature" not in parameters and (signature := recognize(config)):
        parameters["signature"] = signature
        parameters.setdefault("owned_by", "triton")
    codecs = SIGNATURES[parameters["signature"]].codecs if parameters.get("signature") in SIGNATURES else {}
    if codecs and Complete.operation not in codecs:
        parameters.setdefault("operations", json.dumps(list(codecs)))
    if "signature" in parameters and "operations" not in parameters:
        carried = SIGNATURES[parameters["signature"]].codecs if parameters["signature"] in SIGNATURES else {}
        if carried and Complete.operation not in carried:
            parameters["operations"] = json.dumps(list(carried))
    if "signature" in parameters and "operations" not in parameters:
        chats = "chat_template" in parameters
        parameters["operations"] = json.dumps([Chat.operation, Complete.operation] if chats else [Complete.operation])
        if not chats:
            remark = (
                "it has no chat template, so it offers completions only; add one in TRITONIC_MODELS_FILE: "
                f'[models."{config.name}"] with tokenizer_config, chat_template_file or chat_template'
            )
    if card.ADD_BOS_PARAMETER not in parameters and _adds_bos(config, parameters, configs):
        parameters[card.ADD_BOS_PARAMETER] = "true"
    return replace(config, parameters=parameters), remark


def _adds_bos(config: ModelConfig, parameters: card.Parameters, configs: Mapping[str, ModelConfig]) -> bool:
    """Return whether a backend puts `bos_token` before each prompt.

    It does if it tokenises with special tokens and the tokenizer adds `bos_token`. If nothing is known about the
    tokenizer, a chat template that uses `bos_token` shows that prompts of the checkpoint begin with it.
    """
    signature = SIGNATURES.get(parameters.get("signature", ""))
    if signature is None or not signature.adds_special_tokens(config, configs):
        return False
    adds = card.tokenizer_adds_bos(parameters)
    return "bos_token" in chat_template.variables(parameters.get("chat_template", "")) if adds is None else adds


def is_ensemble_step(name: str, configs: Mapping[str, ModelConfig]) -> bool:
    """Return whether the model `name` is a step of an ensemble among `configs`."""
    return any(name in config.steps for config in configs.values())


def find_stop_request(config: ModelConfig, configs: Mapping[str, ModelConfig]) -> StopRequest | None:
    """Return the request that stops a request to an ensemble; None if closing its stream is enough.

    `configs` are the models of its server.
    """
    steps = [configs[step] for step in config.steps if step in configs]
    stops = (signature.stop_request(step) for step in steps for signature in SIGNATURES.values())
    return next(filter(None, stops), None)
