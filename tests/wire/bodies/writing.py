"""How the bodies of these tests are written."""

MB = 1024 * 1024
CHAT, TEXT, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
GENERATIONS, EDITS = "/v1/images/generations", "/v1/images/edits"

EMPTY, WORD, LETTER, QUOTE = "{}", '""', '"a"', '"\\""'
LONG = "x" * 30_000_000
EMOJI = "\U0001f600"
PART = '{"type":"text","text":"a"}'
CALL = '{"id":"c","function":{"name":"f","arguments":"ARGUMENTS"}}'
TOOL = '{"type":"function","function":{"name":"NAME","parameters":{"type":"object","properties":{PROPERTIES}}}}'


def many(item: str, count: int) -> str:
    return ",".join([item] * count)


def members(count: int, value: str = "1") -> str:
    return ",".join(f'"{i:06d}":{value}' for i in range(count))


def hello(more: str) -> bytes:
    return f'{{"model":"hello","messages":[{said(LETTER)}],{more}}}'.encode()


def messages(*written: str) -> bytes:
    return f'{{"model":"hello","messages":[{",".join(written)}]}}'.encode()


def said(content: str) -> str:
    return f'{{"role":"user","content":{content}}}'


def called(arguments: str, count: int = 1) -> str:
    escaped = arguments.replace("\\", "\\\\").replace('"', '\\"')
    return f'{{"role":"assistant","tool_calls":[{many(CALL.replace("ARGUMENTS", escaped), count)}]}}'


def tools(count: int, properties: int) -> bytes:
    tool = TOOL.replace("PROPERTIES", members(properties, EMPTY))
    return hello(f'"tools":[{",".join(tool.replace("NAME", f"f{i}") for i in range(count))}]')


def schema(written: str) -> bytes:
    return hello(f'"response_format":{{"type":"json_schema","json_schema":{{"schema":{written}}}}}')


def prompt(written: str) -> bytes:
    return f'{{"model":"hello","prompt":{written}}}'.encode()


def inputs(written: str) -> bytes:
    return f'{{"model":"vectors","input":{written}}}'.encode()


def drawn(more: str) -> bytes:
    return f'{{"model":"shapes",{more}}}'.encode()


def field(content: bytes, name: bytes = b"prompt", more: bytes = b"") -> bytes:
    """A form with a model and one other field."""
    return (
        b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nshapes\r\n'
        b"--b\r\nContent-Disposition: form-data; name=" + name + b"\r\n" + more + b"\r\n" + content + b"\r\n--b--\r\n"
    )
