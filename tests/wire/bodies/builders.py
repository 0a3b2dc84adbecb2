"""Builders of large request bodies as text, because objects of this size would be slow."""

MB = 1024 * 1024
CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
GENERATIONS, EDITS = "/v1/images/generations", "/v1/images/edits"

EMPTY, EMPTY_STRING, LETTER, QUOTE = "{}", '""', '"a"', '"\\""'
LONG_TEXT = "x" * 30_000_000
EMOJI = "\U0001f600"
PART = '{"type":"text","text":"a"}'
CALL = '{"id":"c","function":{"name":"f","arguments":"ARGUMENTS"}}'
TOOL = '{"type":"function","function":{"name":"NAME","parameters":{"type":"object","properties":{PROPERTIES}}}}'


def repeat(item: str, count: int) -> str:
    return ",".join([item] * count)


def object_members(count: int, value: str = "1") -> str:
    return ",".join(f'"{i:06d}":{value}' for i in range(count))


def chat_body(more: str) -> bytes:
    return f'{{"model":"hello","messages":[{user_message(LETTER)}],{more}}}'.encode()


def chat_messages_body(*messages: str) -> bytes:
    return f'{{"model":"hello","messages":[{",".join(messages)}]}}'.encode()


def user_message(content: str) -> str:
    return f'{{"role":"user","content":{content}}}'


def tool_call_message(arguments: str, count: int = 1) -> str:
    escaped = arguments.replace("\\", "\\\\").replace('"', '\\"')
    return f'{{"role":"assistant","tool_calls":[{repeat(CALL.replace("ARGUMENTS", escaped), count)}]}}'


def tools_body(count: int, properties: int) -> bytes:
    tool = TOOL.replace("PROPERTIES", object_members(properties, EMPTY))
    return chat_body(f'"tools":[{",".join(tool.replace("NAME", f"f{i}") for i in range(count))}]')


def schema_body(schema: str) -> bytes:
    return chat_body(f'"response_format":{{"type":"json_schema","json_schema":{{"schema":{schema}}}}}')


def completion_body(prompt: str) -> bytes:
    return f'{{"model":"hello","prompt":{prompt}}}'.encode()


def embedding_body(inputs: str) -> bytes:
    return f'{{"model":"vectors","input":{inputs}}}'.encode()


def image_body(more: str) -> bytes:
    return f'{{"model":"shapes",{more}}}'.encode()


def form_body(content: bytes, name: bytes = b"prompt", more: bytes = b"") -> bytes:
    """Return a form with a model and one other field. `more` are additional headers of the field."""
    return (
        b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nshapes\r\n'
        b"--b\r\nContent-Disposition: form-data; name=" + name + b"\r\n" + more + b"\r\n" + content + b"\r\n--b--\r\n"
    )
