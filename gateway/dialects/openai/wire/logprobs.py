"""Log probabilities, in the shape of chats and in the older shape of completions."""

from collections.abc import Iterable
from typing import Any

from gateway.operations.text import Logprob, TokenLogprob


def render_chat_logprobs(tokens: Iterable[TokenLogprob]) -> dict[str, Any]:
    """Return the `logprobs` of a chat: https://platform.openai.com/docs/api-reference/chat/object"""
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
    """Renders the `logprobs` of one completion, whose entries say where in its text each token begins.

    Only the bytes of the tokens are looked at, and the prompt where it is a text: however an answer is cut into events,
    the entries are the same. A token that begins inside a character has the offset of that character.
    """

    def __init__(self, prompt: str | None = None) -> None:
        """`prompt` is the text with which the answer begins where tokens of a prompt are rendered; None: theirs."""
        self._prompt = None if prompt is None else prompt.encode()
        self._within = False
        """Whether the token before was one of the prompt's."""
        self._at = 0
        """Bytes of the prompt that the tokens so far have taken."""
        self._offset = 0
        self._begun = b""
        """Of a character that is not whole yet."""

    def render(self, tokens: Iterable[TokenLogprob]) -> dict[str, Any]:
        """Return https://platform.openai.com/docs/api-reference/completions/object for the next `tokens`."""
        names: list[str] = []
        values: list[float | None] = []
        likeliest: list[dict[str, float | None] | None] = []
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
            nothing = chosen.logprob is None  # is known of the first token of a prompt
            likeliest.append(
                None if nothing else {_token_name(likely): likely.logprob for likely in (*token.top_logprobs, chosen)}
            )
        return {"tokens": names, "token_logprobs": values, "top_logprobs": likeliest, "text_offset": offsets}

    def _show(self, data: bytes) -> int:
        """Count the characters that a token's bytes complete, and return the place of the one that it begins in."""
        begun, place = self._begun, self._offset
        data, size = begun + data, len(data)
        # What cannot go on as it began is shown as one character, and the token begins the next.
        if begun and size and not _is_incomplete_character(data[: len(begun) + 1]):
            place += 1
        whole = len(data) - _count_incomplete_bytes(data)
        self._offset += len(data[:whole].decode(errors="replace"))
        self._begun = data[whole:]
        return place

    def _of_prompt(self, token: Logprob) -> bytes:
        """What a token stands for in the text of the prompt.

        That begins neither with the token that begins a sequence nor with the space that some tokenizers put there, and
        some tokenizers change a text before they cut it.
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
        """The answer begins behind the prompt, however its tokens were written."""
        if self._prompt is not None:
            self._show(self._prompt[self._at :])


def _count_incomplete_bytes(data: bytes) -> int:
    """How many bytes at the end are the beginning of a character."""
    if data.isascii():
        return 0
    beginnings = (size for size in range(1, min(len(data), 3) + 1) if data[-size] >= 0xC0)
    size = next(beginnings, 0)
    return size if size and _is_incomplete_character(data[-size:], whole=False) else 0


def _is_incomplete_character(data: bytes, *, whole: bool = True) -> bool:
    """Whether some bytes begin a character; `whole`: or are one."""
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return error.start == 0 and error.reason == "unexpected end of data"
    return whole


def _token_name(likelihood: Logprob) -> str:
    """A token as text; one that is no whole character by its bytes, as OpenAI writes it, lest two have one name."""
    try:
        return likelihood.data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in likelihood.data)
