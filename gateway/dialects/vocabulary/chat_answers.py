"""What answers to a chat consist of: https://platform.openai.com/docs/api-reference/chat/object and …/chat-streaming

`reasoning_content` is what a model thinks before it answers, as DeepSeek's and vLLM's servers show it.
"""

import uuid
from typing import Any

from gateway.operations.chat import Answer, CallArguments, CallBegin, Thought
from gateway.operations.text import Delta


def message(answer: Answer) -> dict[str, Any]:
    """Return the message of a whole answer."""
    said: dict[str, Any] = {"role": "assistant", "content": answer.text}
    if answer.thought:
        said["reasoning_content"] = answer.thought
    if answer.calls:
        said["content"] = answer.text or None
        said["tool_calls"] = [
            {"id": _call_id(), "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in answer.calls
        ]
    return said


def delta(event: Delta | Thought | CallBegin | CallArguments) -> dict[str, Any]:
    """Return the `delta` of a chunk that tells of `event`."""
    match event:
        case Delta():
            return {"content": event.text}
        case Thought(_, text):
            return {"reasoning_content": text}
        case CallBegin(_, call, name):
            begun = {"index": call, "id": _call_id(), "type": "function"}
            return {"tool_calls": [{**begun, "function": {"name": name, "arguments": ""}}]}
        case CallArguments(_, call, text):
            return {"tool_calls": [{"index": call, "function": {"arguments": text}}]}


def _call_id() -> str:
    return f"call_{uuid.uuid4().hex[:24]}"
