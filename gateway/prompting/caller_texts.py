"""Collects the texts that the caller wrote in a chat, and masks them (`gateway.prompting.masking`)."""

import json
from dataclasses import replace
from typing import Any

from gateway.operations.chat import Chat, Message, Part, TextPart, Tool, ToolCall
from gateway.prompting.masking import TextMasker


def collect_texts(chat: Chat) -> list[str]:
    """Return every text of the caller that the chat template receives, including the keys of JSON objects."""
    found: list[str] = []
    for message in chat.messages:
        if isinstance(message.content, str):
            found.append(message.content)
        else:
            found += [part.text for part in message.content if isinstance(part, TextPart)]
        found += [text for text in (message.name, message.tool_call_id, message.reasoning) if text]
        for call in message.tool_calls:
            found += (call.id, call.name, call.arguments)
            if call.has_valid_arguments and "\\u" in call.arguments:  # any character may be escaped
                _add_strings(json.loads(call.arguments), found)
    for tool in chat.tools:
        _add_strings(tool.source, found)
    if chat.template_arguments:
        _add_strings(chat.template_arguments, found)
    return found


def mask_chat(chat: Chat, masking: TextMasker, *, supports_tools: bool) -> Chat:
    """Return the chat with the caller's texts masked. `supports_tools`: the template gets calls and tools as objects.

    The parameters of tools are not masked, as they become a grammar.
    """
    return replace(
        chat,
        messages=tuple(_message(message, masking, supports_tools) for message in chat.messages),
        tools=tuple(_tool(tool, masking) for tool in chat.tools),
        template_arguments=masking.value(chat.template_arguments),
    )


def _message(message: Message, masking: TextMasker, supports_tools: bool) -> Message:
    answer = message.role == "assistant"

    def text(text: str | None) -> str | None:
        return masking.text(text, answer=answer) if text else text

    def part(part: Part) -> Part:
        return TextPart(masking.text(part.text, answer=answer)) if isinstance(part, TextPart) else part

    content = message.content
    return replace(
        message,
        content=masking.text(content, answer=answer) if isinstance(content, str) else tuple(map(part, content)),
        name=text(message.name),
        tool_call_id=text(message.tool_call_id),
        reasoning=text(message.reasoning),
        tool_calls=tuple(_call(call, masking, supports_tools) for call in message.tool_calls),
    )


def _call(call: ToolCall, masking: TextMasker, supports_tools: bool) -> ToolCall:
    # The template receives the parsed arguments, and may write characters that are escaped in the JSON.
    if supports_tools and call.has_valid_arguments:
        arguments = json.dumps(masking.value(json.loads(call.arguments or "{}")))
    else:
        arguments = masking.text(call.arguments)
    return ToolCall(masking.text(call.id), masking.text(call.name), arguments, call.has_valid_arguments)


def _tool(tool: Tool, masking: TextMasker) -> Tool:
    return replace(tool, source=masking.value(tool.source))


def _add_strings(value: Any, found: list[str]) -> None:
    """Add every string of a JSON value."""
    pending = [value]
    for value in pending:  # the list grows during the loop
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, dict):
            found += value
            pending += value.values()
        elif isinstance(value, list):
            pending += value
