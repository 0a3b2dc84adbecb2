"""Every way in which a generation can fail.

GenerationError
├── InvalidValue           a value is wrong; `param` says which input
├── UnsupportedOption      the option is not known, or not carried by this engine
├── ContextLengthExceeded  the prompt does not fit
├── Overloaded             too many generations wait already
├── Cancelled              the caller no longer wants it
└── EngineFailed           the engine could not go on with it

`str(error)` is what a client sees: `[code:param] A sentence.`
"""

from typing import ClassVar


class GenerationError(Exception):
    """A failure with a code for programs and a sentence for people."""

    code: ClassVar[str] = "engine_failed"

    def __init__(self, message: str, param: str | None = None) -> None:
        """`param` is the name of the input at fault, where one is."""
        super().__init__(message)
        self.message = message
        self.param = param

    def __str__(self) -> str:
        return f"[{self.code}:{self.param}] {self.message}" if self.param else f"[{self.code}] {self.message}"


class InvalidValue(GenerationError):
    """An input or an option holds a value that it may not hold."""

    code = "invalid_value"


class UnsupportedOption(GenerationError):
    """An option is unknown, or this engine cannot honour it."""

    code = "unsupported_option"


class ContextLengthExceeded(GenerationError):
    """The prompt leaves no room for an answer in the model's context."""

    code = "context_length_exceeded"


class Overloaded(GenerationError):
    """More generations wait than the engine is told to hold."""

    code = "overloaded"


class Cancelled(GenerationError):
    """The caller went away, or asked to stop."""

    code = "cancelled"


class EngineFailed(GenerationError):
    """The engine raised, or shuts down; the sentence says which."""

    code = "engine_failed"
