"""The probe of the circuit breaker (`gateway.models.circuit_breaker`): a minimal request to a model."""

import asyncio
import uuid
from contextlib import aclosing

from gateway.errors import GatewayError, ModelTimeout
from gateway.models.servers import Model
from gateway.operations.chat import Chat
from gateway.operations.complete import Complete
from gateway.operations.embed import Embed
from gateway.operations.text import Sampling

REQUEST_ID_PREFIX = "probe/"
"""Prefix of the request ids of probes."""

_TIMEOUT_SECONDS = 30.0
"""Timeout of the response, in seconds.

A model with a full queue refuses the probe at once. Other requests have failed in a queue longer than this as well.
"""


def can_be_probed(model: Model) -> bool:
    """Return whether a model offers an operation whose smallest request costs next to nothing."""
    return bool(model.operations & {Chat.operation, Complete.operation, Embed.operation})


async def probe(model: Model, timeout: float) -> None:
    """Ask a model for one token, or for the vector of one word. Raises a `GatewayError` where it does not answer.

    `timeout` is the longest silence of a model that requests allow, in seconds.
    """
    if Embed.operation in model.operations:
        call = model.codec(Embed.operation).open(Embed(model=model.name, inputs=("Hello",)), model.card)
    else:
        complete = Complete(model=model.name, prompt="Hello", sampling=Sampling(max_tokens=1))
        call = model.codec(Complete.operation).open(complete, model.card)
    seconds = min(timeout, _TIMEOUT_SECONDS)
    try:
        async with asyncio.timeout(seconds):
            responses = model.server.client.stream(
                model.config.name,
                call.requests[0].tensors,
                request_id=f"{REQUEST_ID_PREFIX}{uuid.uuid4().hex[:16]}",
                timeout=seconds,
                stop=model.stop_request,
            )
            async with aclosing(call.requests[0].events(responses)) as events:
                async for _ in events:
                    pass
    except TimeoutError:
        raise ModelTimeout(f"The model sent no response for {seconds:g} seconds.") from None
    except GatewayError as error:
        raise call.explain(error) from None
