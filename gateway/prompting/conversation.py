"""Between a conversation and a text: how a chat is asked as a text to be continued, and how the answer is read.

So a signature only ever carries texts, and tools and thoughts work with every one of them.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from gateway.errors import InvalidRequest, UnsupportedOption
from gateway.operations.chat import CallArguments, CallBegin, Chat, ChatEvent, Message, Named, Text, Thought
from gateway.operations.complete import Complete
from gateway.operations.text import Delta, Finish, TextEvent, TokenLogprob, Usage
from gateway.prompting import reasoning, template, tool_calls, tools

# What only one format of tool calls writes, in the order in which templates are searched for it.
_MARKS = {
    "<tool_call>": "hermes",
    "[TOOL_CALLS]": "mistral",
    "<|python_tag|>": "llama3_json",
    '"parameters": dictionary of argument name and its value': "llama3_json",
}
# Whose marks are special tokens, which engines hide unless told otherwise.
_SPECIAL = frozenset({"mistral", "llama3_json"})
_RESERVED = frozenset({"messages", "tools", "add_generation_prompt"})


def lower(chat: Chat, parameters: Mapping[str, str]) -> tuple[Complete, "Reader | None"]:
    """Return the text that asks what `chat` asks of a model with these parameters, and what reads the answer.

    There is nothing to read where the answer is only text.

    Raises `InvalidRequest` where the model's chat template refuses the messages, and `UnsupportedOption` where the
    model does not look at pictures.
    """
    source = parameters["chat_template"]
    sees = "image" in json.loads(parameters.get("modalities", '["text"]'))
    if not sees:
        _refuse_pictures(chat)
    offered = bool(chat.tools) and chat.tool_choice != "none"
    knows = "tools" in template.variables(source)
    if reserved := _RESERVED & chat.template_arguments.keys():
        name = min(reserved)
        raise InvalidRequest(f"'{name}' cannot be given to the template.", param=f"chat_template_kwargs.{name}")
    turns = [_turn(message, knows=knows, parts=sees) for message in chat.messages]
    if offered and not knows:
        turns = _with_instruction(turns, tools.offer(chat), parts=sees)
    prompt = template.render(
        source,
        turns,
        json.loads(parameters.get("special_tokens", "{}")),
        tools=[tool.source for tool in chat.tools] if offered and knows else None,
        add_generation_prompt=not chat.continue_final,
        arguments=chat.template_arguments,
    )
    if chat.continue_final:
        prompt = _until_final(prompt, chat.messages[-1])
    structure = (tools.enforced(chat) if offered else None) or chat.sampling.structured_outputs
    sampling = replace(chat.sampling, structured_outputs=structure)
    if offered and structure is None and _format(parameters, source) in _SPECIAL:
        sampling = replace(sampling, skip_special_tokens=False)
    complete = Complete(model=chat.model, prompt=prompt, pictures=chat.pictures, sampling=sampling)
    thinks = _thinking(parameters, prompt) if structure is None else None
    calls = _calling(chat, parameters, source) if offered else None
    return complete, Reader(thinks, calls, chat) if thinks or calls else None


def _refuse_pictures(chat: Chat) -> None:
    for i, message in enumerate(chat.messages):
        if isinstance(message.content, str):
            continue
        for j, part in enumerate(message.content):
            if not isinstance(part, Text):
                path = f"messages[{i}].content[{j}]"
                raise UnsupportedOption(f"'{path}': the model '{chat.model}' does not look at pictures.", param=path)


def _turn(message: Message, *, knows: bool, parts: bool) -> dict[str, Any]:
    """A message as templates know it: https://huggingface.co/docs/transformers/chat_templating

    `knows` is whether the template knows tools, `parts` whether it takes contents in parts.
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
        turn["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                # Templates write arguments as JSON themselves.
                "function": {"name": call.name, "arguments": json.loads(call.arguments or "{}")},
            }
            for call in message.tool_calls
        ]
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


def _until_final(prompt: str, final: Message) -> str:
    """Cut a prompt behind the final message, which is to be continued, as transformers does."""
    content = final.content if isinstance(final.content, str) else ""
    end = prompt.rfind(content.strip())
    if not content.strip() or end < 0:
        raise InvalidRequest("The model's chat template does not show the last message as it is.", param="messages")
    return prompt[: end + len(content.strip())]


class Splitter(Protocol):
    """A parser of `gateway.prompting`: text in, pieces out."""

    def feed(self, text: str) -> Iterable[object]:
        """Return the pieces that `text` completes."""
        ...

    def finish(self) -> Iterable[object]:
        """Return what was held back."""
        ...


def _thinking(parameters: Mapping[str, str], prompt: str) -> Callable[[], Splitter] | None:
    name = parameters.get("reasoning_parser")
    if not name:
        return None
    make = reasoning.THINKERS[name]
    opened = reasoning.opens_thought(prompt)
    return lambda: make(opened=opened)


def _calling(chat: Chat, parameters: Mapping[str, str], source: str) -> Callable[[], Splitter]:
    if isinstance(chat.tool_choice, Named):
        name = chat.tool_choice.name
        return lambda: tool_calls.NamedCall(name)
    if chat.tool_choice == "required":
        return tool_calls.ForcedCalls
    return tool_calls.PARSERS[_format(parameters, source)]


def _format(parameters: Mapping[str, str], source: str) -> str:
    """How the model writes calls: as its parameters say, or else as its template does."""
    guess = next((name for mark, name in _MARKS.items() if mark in source), "hermes")
    return parameters.get("tool_call_parser") or guess


class Reader:
    """Turns the events of a text into those of a chat: thoughts and tool calls are taken out of the text."""

    def __init__(self, thinks: Callable[[], Splitter] | None, calls: Callable[[], Splitter] | None, chat: Chat) -> None:
        self._thinks, self._calls = thinks, calls
        self._one_call = not chat.parallel_tool_calls
        # OpenAI says `stop` where the caller named the function.
        self._named = isinstance(chat.tool_choice, Named)
        self._answers: dict[int, _Answer] = {}

    def read(self, event: TextEvent) -> Iterable[ChatEvent]:
        """Yield the events of a chat that an event of a text means."""
        if isinstance(event, Usage):
            yield event
            return
        answer = self._answers.get(event.index)
        if answer is None:
            answer = self._answers[event.index] = _Answer(event.index, self._thinks, self._calls, self._one_call)
        if isinstance(event, Delta):
            yield from answer.feed(event)
            return
        yield from answer.finish()
        called = answer.called and not self._named and event.reason == "stop"
        yield Finish(event.index, "tool_calls" if called else event.reason)


class _Answer:
    """One answer on its way through the parsers: thoughts first, calls in what is left."""

    def __init__(
        self,
        index: int,
        thinks: Callable[[], Splitter] | None,
        calls: Callable[[], Splitter] | None,
        one_call: bool,
    ) -> None:
        self._index = index
        self._thinks = thinks() if thinks else None
        self._calls = calls() if calls else None
        self._one_call = one_call
        self._logprobs: tuple[TokenLogprob, ...] = ()
        self.called = False

    def feed(self, delta: Delta) -> Iterable[ChatEvent]:
        """Read on. Log probabilities wait for the next text that is shown."""
        self._logprobs += delta.logprobs
        return self._think(self._thinks.feed(delta.text)) if self._thinks else self._call(delta.text)

    def finish(self) -> Iterable[ChatEvent]:
        """Show what was held back."""
        if self._thinks:
            yield from self._think(self._thinks.finish())
        if self._calls:
            yield from self._events(self._calls.finish())
        if self._logprobs:
            yield self._shown("")

    def _think(self, pieces: Iterable[object]) -> Iterable[ChatEvent]:
        for piece in pieces:
            if isinstance(piece, reasoning.Thought):
                yield Thought(self._index, piece.text)
            elif isinstance(piece, tool_calls.Text):
                yield from self._call(piece.text)

    def _call(self, text: str) -> Iterable[ChatEvent]:
        if self._calls:
            yield from self._events(self._calls.feed(text))
        elif text:
            yield self._shown(text)

    def _events(self, pieces: Iterable[object]) -> Iterable[ChatEvent]:
        for piece in pieces:
            match piece:
                case tool_calls.Text(text):
                    yield self._shown(text)
                case tool_calls.CallBegin(call, name) if not (self._one_call and call):
                    self.called = True
                    yield CallBegin(self._index, call, name)
                case tool_calls.CallArguments(call, text) if not (self._one_call and call):
                    yield CallArguments(self._index, call, text)

    def _shown(self, text: str) -> Delta:
        logprobs, self._logprobs = self._logprobs, ()
        return Delta(self._index, text, 0, logprobs)
