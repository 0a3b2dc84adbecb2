"""What an answer must look like, enforced a token at a time with llguidance."""

import json
import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from llguidance.gbnf_to_lark import gbnf_to_lark
from tokenizers import Tokenizer

from backends.llm.sampling import Structure
from backends.serving.errors import InvalidValue

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

# Compact JSON: a small model would fill its answer with spaces. Keywords that cannot be enforced are refused.
_JSON: "JsonCompileOptions" = {"whitespace_flexible": False, "lenient": False, "coerce_one_of": False}
# The library's defaults let an ambiguous grammar take 0.7 s for one mask and 0.2 s for one token; with these it is 20
# and 6 ms, after which the grammar is given up as too complex. An object takes four items for each optional member.
_MAX_ITEMS_IN_ROW = 1_000
_STEP_MAX_ITEMS = 10_000
# Half a second to compile and 60 MB at the default of 500,000.
_MAX_GRAMMAR_SIZE = 100_000
_KEPT = 32
_MAX_REASON = 500

Mask = npt.NDArray[np.bool_]


class Grammars:
    """Compiles grammars for one tokenizer, keeps those used last, and computes masks in a thread of its own."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, eos: frozenset[int]) -> None:
        """Takes a quarter of a second for 50,000 tokens, during which Python stands still: do it before requests come.

        Raises `ValueError` for a tokenizer that the library cannot read.
        """
        self._vocab_size = vocab_size
        self._tokenizer = LLTokenizer(tokenizer.to_str(), n_vocab=vocab_size, eos_token=sorted(eos) or None)
        self._limits = LLParserLimits(
            max_items_in_row=_MAX_ITEMS_IN_ROW, step_max_items=_STEP_MAX_ITEMS, max_grammar_size=_MAX_GRAMMAR_SIZE
        )
        self._kept: OrderedDict[Structure, Grammar] = OrderedDict()
        self._lock = threading.Lock()
        self._lane = ThreadPoolExecutor(1, "llm-masks")

    def compile(self, structure: Structure) -> "Grammar":
        """Compile, within about half a second. Raises `InvalidValue` with the library's reason."""
        with self._lock:
            if structure in self._kept:
                self._kept.move_to_end(structure)
                return self._kept[structure]
        grammar = self._compile(structure)
        with self._lock:
            self._kept[structure] = grammar
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return grammar

    def close(self) -> None:
        """End the thread."""
        self._lane.shutdown(cancel_futures=True)

    def _compile(self, structure: Structure) -> "Grammar":
        try:
            source = _source(structure)
        except Exception as error:  # the library raises bare exceptions too
            raise InvalidValue(f"This cannot be enforced: {_reason(str(error))}", "structured_outputs") from None
        failed = LLMatcher.validate_grammar(source, self._tokenizer, limits=self._limits)
        if failed:
            raise InvalidValue(f"This cannot be enforced: {_reason(failed)}", "structured_outputs")
        matcher = LLMatcher(self._tokenizer, source, log_level=0, limits=self._limits)
        return Grammar(matcher, self._vocab_size, self._lane)


class Grammar:
    """A compiled grammar; answers that must follow it begin with a copy of its first state."""

    def __init__(self, matcher: LLMatcher, vocab_size: int, lane: ThreadPoolExecutor) -> None:
        """Raises `InvalidValue` where no answer at all would follow the grammar."""
        self._matcher = matcher
        self._vocab_size = vocab_size
        self._lane = lane
        self._first = mask(matcher, vocab_size)

    def begin(self) -> "Matcher":
        """The state of a new answer."""
        return Matcher(self._matcher.deep_copy(), self._first, self._vocab_size, self._lane)


class Matcher:
    """How far an answer has come in its grammar.

    The mask for the next token is computed in the background while the model runs.
    """

    def __init__(self, matcher: LLMatcher, first: Mask, vocab_size: int, lane: ThreadPoolExecutor) -> None:
        self._matcher = matcher
        self._vocab_size = vocab_size
        self._lane = lane
        self._banned = first
        self._coming: Future[Mask] | None = None

    def banned(self, seconds: float) -> Mask | None:
        """Which tokens may not come next, bool[vocabulary]; None where that is not known after `seconds`.

        Raises `InvalidValue` where the grammar turns out to be too complex.
        """
        if self._coming is not None:
            try:
                self._banned = self._coming.result(seconds)
            except TimeoutError:
                return None
            self._coming = None
        return self._banned

    def consume(self, token: int) -> bool:
        """Go on by a token; true where the answer is complete and nothing may follow. Raises `InvalidValue`."""
        if not self._matcher.consume_token(token):
            raise _too_complex(self._matcher)
        if self._matcher.is_stopped():
            return True
        self._coming = self._lane.submit(mask, self._matcher, self._vocab_size)
        return False


def mask(matcher: LLMatcher, vocab_size: int) -> Mask:
    """Which tokens may not come next, bool[vocab_size]. Raises `InvalidValue`."""
    allowed = matcher.compute_bitmask()
    if matcher.is_error():
        raise _too_complex(matcher)
    bits = np.unpackbits(np.frombuffer(allowed, np.uint8), bitorder="little")
    return np.asarray(bits[:vocab_size] == 0)


def _source(structure: Structure) -> str:
    match structure.kind:
        case "json":
            schema = json.loads(structure.text)
            _check_schema(schema)
            return str(LLMatcher.grammar_from_json_schema({} if schema is True else schema, overrides=_JSON))
        case "regex":
            return str(LLMatcher.grammar_from_regex(structure.text))
        case "choice":
            choices = (json.dumps(choice, ensure_ascii=False) for choice in json.loads(structure.text))
            # JSON leaves this one as it is, and the library's lexer does not take it so.
            return str(LLMatcher.grammar_from_lark("start: " + " | ".join(choices).replace("\x7f", "\\u007f")))
        case _:
            # Only GBNF defines with this sign.
            lark = gbnf_to_lark(structure.text) if "::=" in structure.text else structure.text
            return str(LLMatcher.grammar_from_lark(lark))


def _check_schema(schema: object) -> None:
    """Raise `ValueError` for what the library would take, and not enforce."""
    if schema is False:
        raise ValueError("the schema allows nothing")
    if isinstance(schema, dict) and "x-guidance" in schema:
        raise ValueError("x-guidance would change what JSON is")
    parts = [schema]
    while parts:
        part = parts.pop()
        if isinstance(part, list):
            parts += part
        elif isinstance(part, dict):
            parts += part.values()
            least = part.get("minProperties")
            names = part.get("patternProperties") or part.get("additionalProperties", True) is not False
            if isinstance(least, int) and least > 1 and names:
                # A name that is written twice would count twice.
                raise ValueError("minProperties needs additionalProperties false, and no patternProperties")


def _too_complex(matcher: LLMatcher) -> InvalidValue:
    return InvalidValue(f"This cannot be enforced: {_reason(matcher.get_error())}", "structured_outputs")


def _reason(text: str) -> str:
    """The library's reason, without the dump of its state."""
    if "NoExtension" in text[:40]:
        return "no text follows it."
    text = text.split("\n<state>")[0].strip()
    return (text[:_MAX_REASON] or "no reason was given").rstrip(".") + "."
