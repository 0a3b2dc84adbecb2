"""The codec of chats: wraps the codec of texts with chat templates, tool calls and reasoning (`gateway.prompting`)."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from gateway.errors import GatewayError
from gateway.model_card.card import ModelCard
from gateway.operations.chat import Chat
from gateway.prompting import chat_prompt
from gateway.signatures.call import Call
from gateway.signatures.text_codec import TextCodec


@dataclass(frozen=True, slots=True)
class ChatCodec:
    """Renders a chat as a prompt, and reads tool calls and reasoning from the text of the answer."""

    text: TextCodec

    def num_requests(self, request: Chat, card: ModelCard) -> int:
        """Return how many requests the answers take, see `Codec.num_requests`."""
        return 1 if request.sampling.n == 1 or self.text.carries_answers(card) else request.sampling.n

    def open(self, request: Chat, card: ModelCard) -> Call:
        """Render and encode a request, see `Codec.open`.

        Raises `InvalidRequest` where the model's chat template refuses the messages, and `UnsupportedOption` where the
        model does not take images.
        """
        # Only `backends/llm` has this input; it takes structural tags, too.
        is_own_backend = card.has_input("literal_spans")
        try:
            complete, parser = chat_prompt.build_completion(
                request, card.text, literal_spans=is_own_backend, structural_tags=is_own_backend
            )
        except GatewayError as error:
            raise _name_messages(self.text.explain(error)) from None
        try:
            call = self.text.open(complete, card)
        except GatewayError as error:
            raise _name_messages(error) from None
        explain = call.explain
        return replace(call, explain=_messages_explainer(explain), read=parser.read if parser else None)


def _messages_explainer(explain: Callable[[GatewayError], GatewayError]) -> Callable[[GatewayError], GatewayError]:
    return lambda error: _name_messages(explain(error))


def _name_messages(error: GatewayError) -> GatewayError:
    """Name the caller's field: the prompt was made of the messages."""
    if error.param == "prompt":
        error.param = "messages"
    return error
