"""The operation `describe_image`: texts about a picture, by any model that answers chats with images."""

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import ClassVar

import orjson

from gateway.operations.chat import Chat, ChatEvent, ImagePart, Message, TextPart
from gateway.operations.operation import ExpectedOutput, Operation, Output, Progress, TaskOperation
from gateway.operations.text import Delta, Finish, Sampling


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribeImage(TaskOperation):
    """Answer `prompt` about `image`, an encoded file, with `n` texts of up to `max_tokens` tokens each.

    The one output is a JSON list of the texts, which are also its fact `texts`.
    """

    operation: ClassVar = "describe_image"
    phrase: ClassVar = "describe images"
    task_object: ClassVar = "description"

    image: bytes
    prompt: str
    n: int = 1
    max_tokens: int = 256
    temperature: float | None = None

    def model_request(self) -> Operation | None:
        """Return the chat with the picture."""
        content = (ImagePart(self.image), TextPart(self.prompt))
        return Chat(
            model=self.model,
            messages=(Message(role="user", content=content),),
            sampling=Sampling(n=self.n, max_tokens=self.max_tokens, temperature=self.temperature),
            non_streaming=True,
        )

    async def task_events(self, events: AsyncIterator[ChatEvent]) -> AsyncGenerator[Progress | Output]:
        """Yield progress as texts end, and the list of the texts."""
        texts = [""] * self.n
        done = 0
        async for event in events:
            match event:
                case Delta(index, text):
                    texts[index] += text
                case Finish():
                    done += 1
                    yield Progress(done / self.n)
        found = [text.strip() for text in texts]
        yield Output(index=0, content_type="application/json", facts={"texts": found}, data=orjson.dumps(found))

    def expected_outputs(self) -> tuple[ExpectedOutput, ...] | None:
        """Return None: only the model knows the texts, which are facts of the output."""
        return None
