"""The tensors of `backends/reverse`: a text in, and a response for each word out."""

from collections.abc import AsyncGenerator, AsyncIterator

from gateway.errors import GatewayError
from gateway.model_card.card import ModelCard
from gateway.operations.reverse import Reverse, Word
from gateway.signatures.call import Signature, SingleRequestCodec
from gateway.triton.tensors import InferResponse, Tensor, string_tensor


def encode(request: Reverse, card: ModelCard) -> list[Tensor]:
    """Return the tensors of `request`."""
    return [string_tensor("text", request.text)]


async def decode(request: Reverse, responses: AsyncIterator[InferResponse], card: ModelCard) -> AsyncGenerator[Word]:
    """Yield each word as it arrives."""
    async for response in responses:
        for word in response.strings("word"):
            yield Word(word)


def explain(error: GatewayError) -> GatewayError:
    """Return the error as it is: the tensor has the name of the caller's field."""
    return error


SIGNATURE = Signature(
    inputs={"text": "BYTES"},
    outputs={"word": "BYTES"},
    codecs={"reverse": SingleRequestCodec(encode, decode, explain)},
)
