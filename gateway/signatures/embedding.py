"""The embedding tensors of `backends/embedding` (docs/architecture.md)."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping

from gateway.errors import ContextLengthExceeded, GatewayError, ModelFailed, UnsupportedOption
from gateway.model_card.card import ModelCard
from gateway.operations.embed import Embed, Embeddings, EmbedEvent, EmbedUsage
from gateway.signatures.call import Signature, SingleRequestCodec
from gateway.triton.tensors import InferResponse, Tensor, bool_tensor, int32_tensor, string_tensor

INPUTS: Mapping[str, str] = {"text": "BYTES", "token_ids": "INT32", "token_counts": "INT32", "dimensions": "INT32"}
OUTPUTS: Mapping[str, str] = {"embedding": "FP32", "num_tokens": "INT32"}


def encode(request: Embed, card: ModelCard) -> list[Tensor]:
    """Return the tensors of `request`. Raises `UnsupportedOption` where the model cannot truncate as requested."""
    texts = [entry for entry in request.inputs if isinstance(entry, str)]
    if texts:
        tensors = [string_tensor("text", *texts)]
    else:
        lists = [entry for entry in request.inputs if not isinstance(entry, str)]
        tensors = [
            int32_tensor("token_ids", *(token for tokens in lists for token in tokens)),
            int32_tensor("token_counts", *(len(tokens) for tokens in lists)),
        ]
    if request.dimensions is not None:
        tensors.append(int32_tensor("dimensions", request.dimensions))
    if request.truncate_prompt_tokens is not None:
        tensors.append(_truncation(request.truncate_prompt_tokens, card))
    return tensors


def _truncation(tokens: int, card: ModelCard) -> Tensor:
    if tokens == -1 and card.has_input("truncate"):
        return bool_tensor("truncate", True)
    if card.has_input("truncate_prompt_tokens"):
        return int32_tensor("truncate_prompt_tokens", tokens)
    old = card.has_input("truncate")
    supported = "supports only the value -1 of" if old else "does not support"
    raise UnsupportedOption(f"This model {supported} 'truncate_prompt_tokens'.", param="truncate_prompt_tokens")


def explain(error: GatewayError) -> GatewayError:
    """Return a failure with the caller's field name instead of that of a tensor."""
    if error.param and error.param.split("[")[0] in ("text", "token_ids", "token_counts"):
        error.param = "input" + error.param.removeprefix(error.param.split("[")[0])
    if isinstance(error, ContextLengthExceeded):
        error.message += " Set 'truncate_prompt_tokens' to -1 to truncate it."
        error.args = (error.message,)
    return error


async def decode(
    request: Embed, responses: AsyncIterator[InferResponse], card: ModelCard
) -> AsyncGenerator[EmbedEvent]:
    """Yield the usage and the vectors. Raises `ModelFailed` where there are not as many vectors as inputs."""
    vectors: tuple[bytes, ...] = ()
    async for response in responses:
        vectors += response.rows("embedding")
        yield EmbedUsage(sum(response.int32s("num_tokens")))
    if len(vectors) != len(request.inputs):
        raise ModelFailed(f"The model returned {len(vectors)} vectors for {len(request.inputs)} inputs.")
    yield Embeddings(vectors)


SIGNATURE = Signature(
    inputs=INPUTS, outputs=OUTPUTS, codecs={Embed.operation: SingleRequestCodec(encode, decode, explain)}
)
