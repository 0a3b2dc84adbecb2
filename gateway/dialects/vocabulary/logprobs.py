"""Log probabilities, in the shape of chats and in the older shape of completions."""

from collections.abc import Iterable
from typing import Any

from gateway.operations.text import Likelihood, TokenLogprob


def content(tokens: Iterable[TokenLogprob]) -> dict[str, Any]:
    """Return the `logprobs` of a chat: https://platform.openai.com/docs/api-reference/chat/object"""
    return {
        "content": [
            {**_entry(token.chosen), "top_logprobs": [_entry(likely) for likely in token.likeliest]}
            for token in tokens
            if token.chosen
        ],
        "refusal": None,
    }


def _entry(likelihood: Likelihood) -> dict[str, Any]:
    return {"token": likelihood.token, "logprob": likelihood.logprob, "bytes": list(likelihood.data)}


class Offsets:
    """Renders the `logprobs` of one completion, whose entries say where in its text each token begins."""

    def __init__(self) -> None:
        self._data = b""
        self._offset = 0

    def render(self, tokens: Iterable[TokenLogprob], prompt: str = "") -> dict[str, Any]:
        """Return https://platform.openai.com/docs/api-reference/completions/object for the next `tokens`.

        `prompt` is the text of the first token of an echoed prompt, which has no probability.
        """
        names: list[str] = []
        values: list[float | None] = []
        likeliest: list[dict[str, float] | None] = []
        offsets: list[int] = []
        for token in tokens:
            offsets.append(self._offset)
            if token.chosen is None:
                names.append(prompt)
                values.append(None)
                likeliest.append(None)
                self._offset += len(prompt)
                continue
            names.append(_name(token.chosen))
            values.append(token.chosen.logprob)
            likeliest.append({_name(likely): likely.logprob for likely in (*token.likeliest, token.chosen)})
            self._advance(token.chosen.data)
        return {"tokens": names, "token_logprobs": values, "top_logprobs": likeliest, "text_offset": offsets}

    def _advance(self, data: bytes) -> None:
        """Count the characters that are whole; a token may end inside one."""
        self._data += data
        whole = self._data.decode(errors="ignore")
        if len(whole.encode()) == len(self._data) or len(self._data) > 8:
            self._offset += len(self._data.decode(errors="replace"))
            self._data = b""


def _name(likelihood: Likelihood) -> str:
    """A token as text; one that is no whole character by its bytes, as OpenAI writes it, lest two have one name."""
    try:
        return likelihood.data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in likelihood.data)
