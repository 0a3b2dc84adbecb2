"""Chat requests of the platform dialect, with the placeholders of the platform document."""

from typing import Any

MODEL = "<平台模型>"
"""The document's placeholder of a model. Tests configure it as an alias."""
CONTENT = "<对话内容>"
DOCUMENT_HEADERS: Any = {"Content-Type": "application/json", "Authorization": "Bearer <你的许可证>".encode()}
"""The headers of the document's requests. A gateway without keys ignores the licence."""

CHAT = "/tritonic/v1/chat/completions"


def chat_body(content: Any, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}], "model": MODEL, **more}
