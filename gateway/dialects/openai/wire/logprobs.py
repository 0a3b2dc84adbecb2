"""Log probabilities, in the format of chats and in the older format of completions."""

from collections.abc import Iterable
from typing import Any

from gateway.operations.text import Logprob, TokenLogprob


def render_chat_logprobs(tokens: Iterable[TokenLogprob]) -> dict[str, Any]:
    """Return the `logprobs` of a chat choice: https://platform.openai.com/docs/api-reference/chat/object"""
    return {
        "content": [
            {**_entry(token.chosen), "top_logprobs": [_entry(likely) for likely in token.top_logprobs]}
            for token in tokens
        ],
        "refusal": None,
    }


def _entry(likelihood: Logprob) -> dict[str, Any]:
    return {"token": likelihood.token, "logprob": likelihood.logprob, "bytes": list(likelihood.data)}


class CompletionLogprobsRenderer:
    """Renders the `logprobs` of one completion, with the offset of each token in the text.

    Offsets depend only on the bytes of the tokens, and on the prompt where that is text: they do not change with the
    division of an answer into events. A token that begins inside a character has the offset of that character.
    """

    def __init__(self, prompt: str | None = None) -> None:
        """`prompt` is the text that the answer echoes; None: the answer echoes the bytes of the prompt's tokens."""
        self._prompt = None if prompt is None else prompt.encode()
        self._within = False
        """True while the last token was one of the prompt."""
        self._at = 0
        """Bytes of the prompt that the tokens so far stand for."""
        self._offset = 0
        self._begun = b""
        """First bytes of a character whose other bytes come with later tokens."""

    def render(self, tokens: Iterable[TokenLogprob]) -> dict[str, Any]:
        """Return the `logprobs` of the next `tokens`.

        https://platform.openai.com/docs/api-reference/completions/object
        """
        names: list[str] = []
        values: list[float | None] = []
        top_logprobs: list[dict[str, float | None] | None] = []
        offsets: list[int] = []
        for token in tokens:
            chosen = token.chosen
            if self._within and not token.is_prompt:
                self._leave_prompt()
            self._within = token.is_prompt
            shown = b"" if token.is_hidden else self._of_prompt(chosen) if token.is_prompt else chosen.data
            offsets.append(self._show(shown))
            names.append(_token_name(chosen))
            values.append(chosen.logprob)
            is_first = chosen.logprob is None  # the first token of a prompt has no probability
            top_logprobs.append(
                None if is_first else {_token_name(likely): likely.logprob for likely in (*token.top_logprobs, chosen)}
            )
        return {"tokens": names, "token_logprobs": values, "top_logprobs": top_logprobs, "text_offset": offsets}

    def _show(self, data: bytes) -> int:
        """Count the characters that a token completes, and return the offset of the character that it begins in."""
        begun, offset = self._begun, self._offset
        data, size = begun + data, len(data)
        # Bytes that the token does not continue decode to one replacement character; the token begins the next.
        if begun and size and not _is_incomplete_character(data[: len(begun) + 1]):
            offset += 1
        whole = len(data) - _count_incomplete_bytes(data)
        self._offset += len(data[:whole].decode(errors="replace"))
        self._begun = data[whole:]
        return offset

    def _of_prompt(self, token: Logprob) -> bytes:
        """Return the bytes of the prompt's text that a token stands for.

        The text has neither the token that begins a sequence nor the space that some tokenizers insert before it. Other
        bytes may differ too: some tokenizers normalize a text.
        """
        prompt, start, data = self._prompt, self._at, token.data
        if prompt is None:
            return data
        if not prompt.startswith(data, start):
            if start == 0 and data[:1] == b" " and prompt.startswith(data[1:]):
                data = data[1:]
            elif token.logprob is None:
                data = b""
            data = prompt[start : start + len(data)]
        self._at += len(data)
        return data

    def _leave_prompt(self) -> None:
        """Count the rest of the prompt: the answer begins behind it, whatever the bytes of the prompt's tokens were."""
        if self._prompt is not None:
            self._show(self._prompt[self._at :])


def _count_incomplete_bytes(data: bytes) -> int:
    """Return how many bytes at the end of `data` begin a character without completing it."""
    if data.isascii():
        return 0
    sizes = (size for size in range(1, min(len(data), 3) + 1) if data[-size] >= 0xC0)
    size = next(sizes, 0)
    return size if size and _is_incomplete_character(data[-size:], whole=False) else 0


def _is_incomplete_character(data: bytes, *, whole: bool = True) -> bool:
    """Return whether `data` is the beginning of a character. For valid UTF-8, return `whole`."""
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return error.start == 0 and error.reason == "unexpected end of data"
    return whole


def _token_name(likelihood: Logprob) -> str:
    """Return a token as text. Invalid UTF-8 becomes `bytes:` and escapes, as OpenAI writes it: names stay distinct."""
    try:
        return likelihood.data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in likelihood.data)
