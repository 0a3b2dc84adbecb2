"""Turns a chat into a prompt to be continued, and creates the parser of the answer.

Signatures therefore handle plain texts only, and tools and reasoning work with each of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from gateway.errors import GatewayError, InvalidRequest, UnsupportedOption
from gateway.model_card.card import TextCard
from gateway.operations.chat import Chat, Message, RequiredTool, TextPart
from gateway.operations.complete import Complete
from gateway.prompting import (
    caller_texts,
    chat_template,
    reasoning,
    special_tokens,
    tool_call_history,
    tool_calls,
    tools,
)
from gateway.prompting.answer_parser import AnswerParser, TextParser
from gateway.prompting.calls_or_structure import combine_calls_and_structure
from gateway.prompting.masking import TextMasker

# Texts that occur in one format of tool calls only, in the order in which templates are searched for them.
_FORMAT_MARKERS = {
    "<tool_call>": "hermes",
    "[TOOL_CALLS]": "mistral",
    "<|python_tag|>": "llama3_json",
    '"parameters": dictionary of argument name and its value': "llama3_json",
}
# Formats whose marks are special tokens, which engines hide by default.
_SPECIAL_TOKEN_FORMATS = frozenset({"mistral", "llama3_json"})
_CONTINUE_TAG = "CONTINUE_FINAL_MESSAGE_TAG "
_RESERVED_ARGUMENTS = frozenset({"messages", "tools", "add_generation_prompt"})


def build_completion(
    chat: Chat, card: TextCard, *, literal_spans: bool = False, structural_tags: bool = False
) -> tuple[Complete, AnswerParser | None]:
    """Return the completion that a chat becomes for a model with a chat template, and the parser of its answer.

    The parser is None if the answer is plain text. `literal_spans`: the model has an input for the parts of a prompt in
    which special tokens are text; without it, zero-width spaces break up special tokens in the caller's texts.
    `structural_tags`: its engine supports structured outputs of that kind.

    Raises `InvalidRequest` if the model's chat template refuses the messages, and `UnsupportedOption` for images if the
    model does not support them.
    """
    source, supports_images = card.chat_template, card.supports_images
    assert source is not None
    if not supports_images:
        _reject_images(chat)
    call_format = card.tool_call_parser or _guess_tool_call_format(source)
    if any(message.tool_calls or message.role == "tool" for message in chat.messages):
        chat = replace(
            chat, messages=tool_call_history.order_results(chat.messages, short_ids=call_format == "mistral")
        )
    offers_tools = bool(chat.tools) and chat.tool_choice != "none"
    supports_tools = "tools" in chat_template.variables(source)
    token_names = card.special_tokens
    if reserved := (_RESERVED_ARGUMENTS | token_names.keys()) & chat.template_arguments.keys():
        name = min(reserved)
        raise InvalidRequest(
            f"The name '{name}' is reserved and cannot be passed to the chat template.",
            param=f"chat_template_kwargs.{name}",
        )
    masking = _build_masker(chat, card)
    masked_chat = caller_texts.mask_chat(chat, masking, supports_tools=supports_tools) if masking else chat
    messages = (
        [*masked_chat.messages[:-1], _append_tag(masked_chat.messages[-1])]
        if chat.continue_final_message
        else masked_chat.messages
    )

    def rendered(*, objects: bool) -> str:
        turns = [
            _render_message(message, supports_tools=supports_tools, parts=supports_images, objects=objects)
            for message in messages
        ]
        if offers_tools and not supports_tools:
            turns = _with_instruction(turns, tools.tool_instructions(masked_chat), parts=supports_images)
        return chat_template.render(
            source,
            turns,
            token_names,
            tools=[tool.source for tool in masked_chat.tools] if offers_tools and supports_tools else None,
            add_generation_prompt=not chat.continue_final_message,
            arguments=masked_chat.template_arguments,
        )

    try:
        try:
            prompt = rendered(objects=False)
        except GatewayError:
            # A template that iterates over the members of arguments fails where they are a string.
            if not supports_tools or all(
                call.has_valid_arguments for message in messages for call in message.tool_calls
            ):
                raise
            prompt = rendered(objects=True)
    except GatewayError as error:  # its message may quote a masked text
        if masking:
            error.message = masking.restore(error.message)
            error.args = (error.message,)
        raise
    prompt, spans = masking.unmask(prompt, spans=literal_spans) if masking else (prompt, [])
    if chat.continue_final_message:
        prompt = _cut_at_tag(prompt)
    structure, call_starts = chat.sampling.structured_outputs, ""
    if offers_tools and chat.tool_choice != "auto":
        structure = tools.required_calls_structure(chat)
    elif offers_tools and structure:
        structure, call_starts = combine_calls_and_structure(
            chat, structure, call_format, structural_tags=structural_tags
        )
    sampling = replace(chat.sampling, structured_outputs=structure)
    complete = Complete(
        model=chat.model,
        prompt=prompt,
        literal_spans=_byte_spans(prompt, spans) if spans else (),
        images=chat.images,
        sampling=sampling,
        show_special_tokens=offers_tools and structure is None and call_format in _SPECIAL_TOKEN_FORMATS,
        non_streaming=chat.non_streaming,
    )
    new_reasoning = _new_reasoning_parser(card, prompt) if structure is None else None
    new_calls = _new_tool_call_parser(chat, call_format, call_starts) if offers_tools else None
    return complete, AnswerParser(new_reasoning, new_calls, chat) if new_reasoning or new_calls else None


def check(card: TextCard) -> None:
    """Raise `ValueError` if a model names an unknown parser. Also fills caches that would slow down the first chat."""
    for name, value, known in (
        ("tool_call_parser", card.tool_call_parser, tool_calls.PARSERS),
        ("reasoning_parser", card.reasoning_parser, reasoning.REASONING_PARSERS),
    ):
        if value is not None and value not in known:
            raise ValueError(f"{name} is {value!r}; expected one of {', '.join(known)}")
    if card.chat_template is not None:
        special_tokens.get_guard(card)


def _build_masker(chat: Chat, card: TextCard) -> TextMasker | None:
    """Return the masker of the caller's texts; None where no text can hold a part of a special token."""
    guard = special_tokens.get_guard(card)
    if guard is None:
        return None
    texts = caller_texts.collect_texts(chat)
    return TextMasker(guard, texts) if guard.needs_masking(texts) else None


def _byte_spans(prompt: str, spans: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Convert spans of characters to spans of UTF-8 bytes. Parts beyond the end of the prompt are dropped."""
    found, at, size = [], 0, 0
    for start, end in spans:
        size += len(prompt[at:start].encode())
        at, first = start, size
        size += len(prompt[at:end].encode())
        at = end
        if size > first:
            found.append((first, size))
    return tuple(found)


def _reject_images(chat: Chat) -> None:
    for i, message in enumerate(chat.messages):
        if isinstance(message.content, str):
            continue
        for j, part in enumerate(message.content):
            if not isinstance(part, TextPart):
                path = f"messages[{i}].content[{j}]"
                raise UnsupportedOption(f"'{path}': the model '{chat.model}' does not support images.", param=path)


def _render_message(message: Message, *, supports_tools: bool, parts: bool, objects: bool) -> dict[str, Any]:
    """Return a message as templates take it: https://huggingface.co/docs/transformers/chat_templating

    `supports_tools`: the template uses the variable `tools`. `parts`: it takes contents as lists of parts.
    `objects`: see `tool_call_history.render_call`.
    """
    role, content = message.role, _content(message, parts)
    if message.role == "tool" and not supports_tools:
        return {"role": "user", "content": _wrap_content("<tool_response>\n", content, "\n</tool_response>")}
    turn: dict[str, Any] = {"role": role, "content": content}
    if message.name is not None:
        turn["name"] = message.name
    if message.tool_call_id is not None:
        turn["tool_call_id"] = message.tool_call_id
    if message.reasoning is not None:
        turn["reasoning_content"] = message.reasoning
    if message.tool_calls and not supports_tools:
        before = "\n" if message.content else ""
        turn["content"] = _wrap_content("", content, before + tools.render_calls(message.tool_calls))
    elif message.tool_calls:
        turn["tool_calls"] = [tool_call_history.render_call(call, objects=objects) for call in message.tool_calls]
    return turn


def _content(message: Message, parts: bool) -> str | list[dict[str, str]]:
    if isinstance(message.content, str):
        return [{"type": "text", "text": message.content}] if parts else message.content
    if not parts:
        # vLLM does the same for templates that take strings.
        return "\n".join(part.text for part in message.content if isinstance(part, TextPart))
    return [
        {"type": "text", "text": part.text} if isinstance(part, TextPart) else {"type": "image"}
        for part in message.content
    ]


def _wrap_content(before: str, content: str | list[dict[str, str]], after: str) -> str | list[dict[str, str]]:
    if isinstance(content, str):
        return before + content + after
    return [{"type": "text", "text": before}, *content, {"type": "text", "text": after}]


def _with_instruction(turns: list[dict[str, Any]], words: str, *, parts: bool) -> list[dict[str, Any]]:
    """Append `words` to the system message, or put a system message before the others."""
    if turns[0]["role"] == "system":
        return [{**turns[0], "content": _wrap_content("", turns[0]["content"], "\n\n" + words)}, *turns[1:]]
    return [{"role": "system", "content": [{"type": "text", "text": words}] if parts else words}, *turns]


def _append_tag(final: Message) -> Message:
    """Return the final message, which the model continues, with a tag at the end of its content.

    The tag finds the end in the rendered prompt, as in transformers (`apply_chat_template`, `continue_final_message`):
    the content itself could occur in the template's own text, too.
    """
    if isinstance(final.content, str):
        return replace(final, content=final.content + _CONTINUE_TAG)
    *before, last = final.content
    parts = (
        (*before, TextPart(last.text + _CONTINUE_TAG))
        if isinstance(last, TextPart)
        else (*final.content, TextPart(_CONTINUE_TAG))
    )
    return replace(final, content=parts)


def _cut_at_tag(prompt: str) -> str:
    """Cut a prompt at the end of the final message's content. Raises `InvalidRequest` where the prompt lacks it."""
    end = prompt.rfind(_CONTINUE_TAG.strip())
    if end < 0:
        raise InvalidRequest(
            "'continue_final_message' is not possible: the model's chat template changes the last message.",
            param="messages",
        )
    # A template that strips contents has removed the space at the end of the tag, and would strip the text before it.
    return prompt[:end] if prompt.startswith(_CONTINUE_TAG, end) else prompt[:end].rstrip()


def _new_reasoning_parser(card: TextCard, prompt: str) -> Callable[[], TextParser] | None:
    if card.reasoning_parser is None:
        return None
    make = reasoning.REASONING_PARSERS[card.reasoning_parser]
    opened = reasoning.ends_inside_thought(prompt)
    return lambda: make(opened=opened)


def _new_tool_call_parser(chat: Chat, call_format: str, call_starts: str) -> Callable[[], TextParser]:
    if isinstance(chat.tool_choice, RequiredTool):
        name = chat.tool_choice.name
        return lambda: tool_calls.NamedCallParser(name)
    if chat.tool_choice == "required":
        return tool_calls.RequiredCallsParser
    if call_starts:
        names = frozenset(tool.name for tool in chat.tools)
        return lambda: tool_calls.CallsOrTextParser(names, call_starts)
    return tool_calls.PARSERS[call_format]


@lru_cache(maxsize=64)
def _guess_tool_call_format(template: str) -> str:
    """Return the format of tool calls that a chat template shows; `hermes` where it shows none."""
    return next((name for mark, name in _FORMAT_MARKERS.items() if mark in template), "hermes")
