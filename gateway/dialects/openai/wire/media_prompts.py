"""The parts of chats with models that generate images or videos: the prompt, refusals, and progress lines."""

from collections.abc import Sequence

from gateway.dialects.openai.wire.chat import CreateChatCompletionRequest
from gateway.dialects.openai.wire.images import MAX_PROMPT_CHARACTERS
from gateway.errors import InvalidRequest, UnsupportedOption
from gateway.operations.chat import Message, TextPart
from gateway.operations.operation import Progress

_PROGRESS_STEP = 0.1
"""Fraction of the work between two progress lines."""
_ROUNDING = 1e-4
"""Tolerance for progress fractions, which are float32."""


class ProgressLines:
    """Turns the progress of a model into lines of an answer."""

    def __init__(self) -> None:
        self.reported = 0.0
        """The fraction that the last line showed."""

    def line(self, event: Progress) -> str:
        """Return the next line; empty where too little was done since the last one."""
        if event.fraction <= self.reported + _PROGRESS_STEP - _ROUNDING:
            return ""
        self.reported = event.fraction
        return f"> Progress: {self.reported:.1%}\n"


def last_prompt(turns: Sequence[Message], noun: str) -> str:
    """Return the text of the last message, which describes the `noun`. Raises `InvalidRequest` if there is none."""
    last, param = turns[-1], f"messages[{len(turns) - 1}]"
    prompt = text_of(last).strip()
    if last.role != "user" or not prompt:
        raise InvalidRequest(f"The last message must have the role 'user' and describe the {noun}.", param=param)
    if len(prompt) > MAX_PROMPT_CHARACTERS:
        raise InvalidRequest(
            f"The description of {noun_phrase(noun)} must have at most {MAX_PROMPT_CHARACTERS} characters.", param=param
        )
    return prompt


def noun_phrase(noun: str) -> str:
    """Return a noun with its article."""
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def reject_text_options(body: CreateChatCompletionRequest, noun: str) -> None:
    """Raise `UnsupportedOption` for options that only text models have. The model generates `noun`s."""
    structured = body.response_format is not None and body.response_format.type != "text"
    for name, is_set in (
        ("tools", bool(body.tools) and body.tool_choice != "none"),
        ("functions", body.uses_legacy_functions and body.function_call != "none"),
        ("response_format", structured),
        ("structured_outputs", body.structured_outputs is not None),
        ("logprobs", bool(body.logprobs)),
        ("continue_final_message", bool(body.continue_final_message)),
    ):
        if is_set:
            raise UnsupportedOption(f"This model generates {noun}s and does not support '{name}'.", param=name)


def text_of(turn: Message) -> str:
    """Return the text of a turn, without its images."""
    if isinstance(turn.content, str):
        return turn.content
    return "\n".join(part.text for part in turn.content if isinstance(part, TextPart))
