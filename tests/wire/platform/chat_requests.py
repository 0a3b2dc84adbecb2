"""How the tests of this dialect ask: the document's own words, with what stands for them."""

from typing import Any

MODEL = "<平台模型>"
"""The document's word for a model; an alias of one that there is."""
CONTENT = "<对话内容>"
DOCUMENT_HEADERS = {"Content-Type": "application/json", "Authorization": "Bearer <你的许可证>".encode()}
"""The headers of the document's requests. A gateway without keys does not look at the licence."""

CHAT = "/tritonic/v1/chat/completions"


def chat_body(content: Any, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}], "model": MODEL, **more}
