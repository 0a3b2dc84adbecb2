"""The token that begins a sequence: a back end that puts it before each prompt must not be given it as well.

Chat templates write `bos_token` where their checkpoint has one, and the tokenizers of most checkpoints put it before a
text, too. `add_bos_token`, as `tokenizer_config.json` calls it, says whether the back end's does (docs/models.md).
"""

import json
from collections.abc import Mapping
from dataclasses import replace

from gateway.operations.complete import Complete

ADD_BOS_PARAMETER = "add_bos_token"
"""The parameter of a model."""


def strip_bos(request: Complete, parameters: Mapping[str, str]) -> Complete:
    """Return a request as a model with these parameters is to be given it.

    A `bos_token` that a caller wrote and that is to be text stays.
    """
    prompt = request.prompt
    if parameters.get(ADD_BOS_PARAMETER) != "true" or not isinstance(prompt, str):
        return request
    bos = json.loads(parameters.get("special_tokens", "{}")).get("bos_token")
    if not bos or not prompt.startswith(bos) or prompt == bos:
        return request
    size, spans = len(bos.encode()), request.literal_spans
    if spans and spans[0][0] < size:
        return request
    return replace(
        request,
        prompt=prompt[len(bos) :],
        literal_spans=tuple((start - size, end - size) for start, end in spans),
    )


def check(parameters: Mapping[str, str]) -> None:
    """Raise `ValueError` where a model's parameters do not say what they could."""
    if (value := parameters.get(ADD_BOS_PARAMETER, "false")) not in ("true", "false"):
        raise ValueError(f"{ADD_BOS_PARAMETER} is {value!r}, and neither 'true' nor 'false'")
