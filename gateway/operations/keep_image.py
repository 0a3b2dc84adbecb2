"""The operation `keep_image`: a picture that exists already, as the output of a task of its own. It needs no model."""

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Any, ClassVar

from gateway.operations.generate_image import OutputFormat
from gateway.operations.operation import ExpectedOutput, Operation, Output, Progress, TaskOperation


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepImage(TaskOperation):
    """Keep `image`, an encoded file that `model` generated with `seed`; None: nothing, a task without outputs."""

    operation: ClassVar = "keep_image"
    phrase: ClassVar = "keep images"
    task_object: ClassVar = "image"

    image: bytes | None = None
    seed: int | None = None
    output_format: OutputFormat = "png"

    def model_request(self) -> Operation | None:
        """Return None: the picture is in the request."""
        return None

    async def task_events(self, events: AsyncIterator[Any]) -> AsyncGenerator[Progress | Output]:
        """Yield the picture."""
        for output in self.expected_outputs():
            assert self.image is not None
            yield Output(index=output.index, content_type=output.content_type, facts=output.facts, data=self.image)

    def expected_outputs(self) -> tuple[ExpectedOutput, ...]:
        """Return the one picture, or nothing."""
        if self.image is None:
            return ()
        return (ExpectedOutput(index=0, content_type=f"image/{self.output_format}", facts={"seed": self.seed}),)
