"""Between a conversation and a text: how a chat is asked as a text to be continued, and how the answer is read.

So a signature only ever carries texts, and tools and thoughts work with every one of them.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from gateway.errors import GatewayError, InvalidRequest, UnsupportedOption
from gateway.operations.chat import Chat, Message, Named, Text
from gateway.operations.complete import Complete
from gateway.prompting import (
    begin,
    callers_texts,
    past_calls,
    reasoning,
    special_tokens,
    template,
    tool_calls,
    tools,
)
from gateway.prompting.answers import Reader, Splitter
from gateway.prompting.either import either
from gateway.prompting.masking import Masking

# What only one format of tool calls writes, in the order in which templates are searched for it.
_MARKS = {
    "<tool_call>": "hermes",
    "[TOOL_CALLS]": "mistral",
    "<|python_tag|>": "llama3_json",
    '"parameters": dictionary of argument name and its value': "llama3_json",
}
# Whose marks are special tokens, which engines hide unless told otherwise.
_SPECIAL = frozenset({"mistral", "llama3_json"})
_TAG = "CONTINUE_FINAL_MESSAGE_TAG "
_RESERVED = frozenset({"messages", "tools", "add_generation_prompt"})


def lower(
    chat: Chat, parameters: Mapping[str, str], *, literal_spans: bool = False, structural_tags: bool = False
) -> tuple[Complete, Reader | None]:
    """Return the text that asks what `chat` asks of a model with these parameters, and what reads the answer.

    There is nothing to read where the answer is only text. With `literal_spans` the model can be told where in a prompt
    special tokens must not be recognised; without, those that the caller wrote are broken. With `structural_tags` its
    engine takes structures of that kind.

    Raises `InvalidRequest` where the model's chat template refuses the messages, and `UnsupportedOption` where the
    model does not look at pictures.
    """
    source = parameters["chat_template"]
    sees = "image" in json.loads(parameters.get("modalities", '["text"]'))
    if not sees:
        _refuse_pictures(chat)
    written = _format(parameters, source)
    if any(message.tool_calls or message.role == "tool" for message in chat.messages):
        chat = replace(chat, messages=past_calls.arranged(chat.messages, short_ids=written == "mistral"))
    offered = bool(chat.tools) and chat.tool_choice != "none"
    knows = "tools" in template.variables(source)
    named = json.loads(parameters.get("special_tokens", "{}"))
    if reserved := (_RESERVED | named.keys()) & chat.template_arguments.keys():
        name = min(reserved)
        raise InvalidRequest(f"'{name}' cannot be given to the template.", param=f"chat_template_kwargs.{name}")
    masking = _masking(chat, parameters, sees)
    shown = callers_texts.masked(chat, masking, knows=knows) if masking else chat
    messages = [*shown.messages[:-1], _tagged(shown.messages[-1])] if chat.continue_final else shown.messages

    def rendered(*, objects: bool) -> str:
        turns = [_turn(message, knows=knows, parts=sees, objects=objects) for message in messages]
        if offered and not knows:
            turns = _with_instruction(turns, tools.offer(shown), parts=sees)
        return template.render(
            source,
            turns,
            named,
            tools=[tool.source for tool in shown.tools] if offered and knows else None,
            add_generation_prompt=not chat.continue_final,
            arguments=shown.template_arguments,
        )

    try:
        try:
            prompt = rendered(objects=False)
        except GatewayError:
            # A template that goes through the members of arguments fails where these are a text.
            if not knows or all(call.valid for message in messages for call in message.tool_calls):
                raise
            prompt = rendered(objects=True)
    except GatewayError as error:  # a template may refuse a text and quote it
        if masking:
            error.message = masking.restored(error.message)
            error.args = (error.message,)
        raise
    prompt, spans = masking.unmask(prompt, spans=literal_spans) if masking else (prompt, [])
    if chat.continue_final:
        prompt = _until_tag(prompt)
    structure, begins = chat.sampling.structured_outputs, ""
    if offered and chat.tool_choice != "auto":
        structure = tools.enforced(chat)
    elif offered and structure:
        structure, begins = either(chat, structure, written, structural_tags=structural_tags)
    sampling = replace(chat.sampling, structured_outputs=structure)
    complete = Complete(
        model=chat.model,
        prompt=prompt,
        literal_spans=_in_bytes(prompt, spans) if spans else (),
        pictures=chat.pictures,
        sampling=sampling,
        special_tokens=offered and structure is None and written in _SPECIAL,
        whole=chat.whole,
    )
    thinks = _thinking(parameters, prompt) if structure is None else None
    calls = _calling(chat, written, begins) if offered else None
    return complete, Reader(thinks, calls, chat) if thinks or calls else None


def check(parameters: Mapping[str, str]) -> None:
    """Raise `ValueError` when a model's parameters name what is not known here."""
    for name, known in (("tool_call_parser", tool_calls.PARSERS), ("reasoning_parser", reasoning.THINKERS)):
        value = parameters.get(name)
        if value and value not in known:
            raise ValueError(f"{name} is {value!r}, and none of {', '.join(known)}")
    special_tokens.check(parameters)
    begin.check(parameters)
    modalities = json.loads(parameters.get("modalities", "[]"))
    if not isinstance(modalities, list) or not all(isinstance(word, str) for word in modalities):
        raise ValueError("modalities is not a list of strings")
    if "chat_template" in parameters:  # found out once, before the first request
        special_tokens.guard_of(parameters, sees="image" in modalities)


def _masking(chat: Chat, parameters: Mapping[str, str], sees: bool) -> Masking | None:
    """What masks the caller's texts, where any of them could hold a part of a special token."""
    guard = special_tokens.guard_of(parameters, sees=sees)
    if guard is None:
        return None
    texts = callers_texts.texts(chat)
    return Masking(guard, texts) if guard.touches(texts) else None


def _in_bytes(prompt: str, spans: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Places in characters as places in the bytes of UTF-8. What lies behind the end of the prompt is left out."""
    found, at, size = [], 0, 0
    for start, end in spans:
        size += len(prompt[at:start].encode())
        at, first = start, size
        size += len(prompt[at:end].encode())
        at = end
        if size > first:
            found.append((first, size))
    return tuple(found)


def _refuse_pictures(chat: Chat) -> None:
    for i, message in enumerate(chat.messages):
        if isinstance(message.content, str):
            continue
        for j, part in enumerate(message.content):
            if not isinstance(part, Text):
                path = f"messages[{i}].content[{j}]"
                raise UnsupportedOption(f"'{path}': the model '{chat.model}' does not look at pictures.", param=path)


def _turn(message: Message, *, knows: bool, parts: bool, objects: bool) -> dict[str, Any]:
    """A message as templates know it: https://huggingface.co/docs/transformers/chat_templating

    `knows` is whether the template knows tools, `parts` whether it takes contents in parts; `objects` is that of
    `past_calls.rendered`.
    """
    role, content = message.role, _content(message, parts)
    if message.role == "tool" and not knows:
        return {"role": "user", "content": _wrapped("<tool_response>\n", content, "\n</tool_response>")}
    turn: dict[str, Any] = {"role": role, "content": content}
    if message.name is not None:
        turn["name"] = message.name
    if message.tool_call_id is not None:
        turn["tool_call_id"] = message.tool_call_id
    if message.reasoning is not None:
        turn["reasoning_content"] = message.reasoning
    if message.tool_calls and not knows:
        before = "\n" if message.content else ""
        turn["content"] = _wrapped("", content, before + tools.written(message.tool_calls))
    elif message.tool_calls:
        turn["tool_calls"] = [past_calls.rendered(call, objects=objects) for call in message.tool_calls]
    return turn


def _content(message: Message, parts: bool) -> str | list[dict[str, str]]:
    if isinstance(message.content, str):
        return [{"type": "text", "text": message.content}] if parts else message.content
    if not parts:
        # As vLLM does for templates that take strings.
        return "\n".join(part.text for part in message.content if isinstance(part, Text))
    return [
        {"type": "text", "text": part.text} if isinstance(part, Text) else {"type": "image"} for part in message.content
    ]


def _wrapped(before: str, content: str | list[dict[str, str]], after: str) -> str | list[dict[str, str]]:
    if isinstance(content, str):
        return before + content + after
    return [{"type": "text", "text": before}, *content, {"type": "text", "text": after}]


def _with_instruction(turns: list[dict[str, Any]], words: str, *, parts: bool) -> list[dict[str, Any]]:
    """Add words to the system's message, or put one before the others."""
    if turns[0]["role"] == "system":
        return [{**turns[0], "content": _wrapped("", turns[0]["content"], "\n\n" + words)}, *turns[1:]]
    return [{"role": "system", "content": [{"type": "text", "text": words}] if parts else words}, *turns]


def _tagged(final: Message) -> Message:
    """The final message, which is to be continued, with a tag at the end of its content.

    As transformers does (`apply_chat_template`, `continue_final_message`): the content itself may stand in the
    template's own text, too.
    """
    if isinstance(final.content, str):
        return replace(final, content=final.content + _TAG)
    *before, last = final.content
    parts = (*before, Text(last.text + _TAG)) if isinstance(last, Text) else (*final.content, Text(_TAG))
    return replace(final, content=parts)


def _until_tag(prompt: str) -> str:
    """Cut a prompt where the final message's content ends. Raises `InvalidRequest` where it is not shown."""
    end = prompt.rfind(_TAG.strip())
    if end < 0:
        raise InvalidRequest("The model's chat template does not show the last message as it is.", param="messages")
    # A template that strips contents has taken the space from the end of the tag, and takes it from before, too.
    return prompt[:end] if prompt.startswith(_TAG, end) else prompt[:end].rstrip()


def _thinking(parameters: Mapping[str, str], prompt: str) -> Callable[[], Splitter] | None:
    name = parameters.get("reasoning_parser")
    if not name:
        return None
    make = reasoning.THINKERS[name]
    opened = reasoning.opens_thought(prompt)
    return lambda: make(opened=opened)


def _calling(chat: Chat, written: str, begins: str) -> Callable[[], Splitter]:
    if isinstance(chat.tool_choice, Named):
        name = chat.tool_choice.name
        return lambda: tool_calls.NamedCall(name)
    if chat.tool_choice == "required":
        return tool_calls.ForcedCalls
    if begins:
        names = frozenset(tool.name for tool in chat.tools)
        return lambda: tool_calls.EitherCalls(names, begins)
    return tool_calls.PARSERS[written]


def _format(parameters: Mapping[str, str], source: str) -> str:
    """How the model writes calls: as its parameters say, or else as its template does."""
    guess = next((name for mark, name in _MARKS.items() if mark in source), "hermes")
    return parameters.get("tool_call_parser") or guess
