"""The errors of a generation: of text, of images or of embeddings.

GenerationError
├── InvalidValue           an input holds an invalid value; `param` names the input
├── UnsupportedOption      the option is unknown, or this engine does not support it
├── ContextLengthExceeded  the prompt is longer than the context
├── Overloaded             the queue is full
├── Unavailable            the server is stopping, or does not run a part of the model
├── Cancelled              the client has disconnected or cancelled
└── EngineFailed           the engine failed, or the model is being unloaded

A client sees `str(error)`: `[code:param] A sentence.`
"""

from typing import ClassVar


class GenerationError(Exception):
    """An error with a code for programs and a sentence for people."""

    code: ClassVar[str] = "engine_failed"

    def __init__(self, message: str, param: str | None = None) -> None:
        """`param` names the input at fault, if there is one."""
        super().__init__(message)
        self.message = message
        self.param = param

    def __str__(self) -> str:
        return f"[{self.code}:{self.param}] {self.message}" if self.param else f"[{self.code}] {self.message}"


class InvalidValue(GenerationError):
    """An input or an option holds an invalid value."""

    code = "invalid_value"


class UnsupportedOption(GenerationError):
    """An option is unknown, or this engine does not support it."""

    code = "unsupported_option"


class ContextLengthExceeded(GenerationError):
    """The prompt leaves no room for an answer in the model's context window."""

    code = "context_length_exceeded"


class Overloaded(GenerationError):
    """The queue is full: as many requests are active as the model's configuration allows."""

    code = "overloaded"


class Unavailable(GenerationError):
    """The server is stopping, or does not run a part of the model: another server, or this one later, may answer."""

    code = "unavailable"


class Cancelled(GenerationError):
    """The client has disconnected or cancelled."""

    code = "cancelled"


class EngineFailed(GenerationError):
    """The engine raised an exception or is closing; the sentence states which."""

    code = "engine_failed"
