"""The pieces of a text, as phonemes, in the order in which they are spoken."""

from collections.abc import Iterator

from backends.serving.errors import InvalidValue
from backends.speech.text.phonemizers import Phonemizer
from backends.speech.text.sentences import cut, first_clause_end, sentences


def pieces(text: str, language: str, phonemizer: Phonemizer, limit: int, first_limit: int) -> Iterator[str]:
    """Yield phonemes, at most `limit` characters at a time, and read no sentence before it is asked for.

    A first sentence of more than `first_limit` characters is cut after its first clause, so that a client hears it
    soon. Raises `InvalidValue`, naming `text`, at the end of a text that has nothing to say.
    """
    is_first = True
    for sentence in sentences(text):
        phonemes = phonemizer(sentence, language)
        end = first_clause_end(phonemes) if is_first and len(phonemes) > first_limit else 0
        for piece in (piece for part in (phonemes[:end].rstrip(), phonemes[end:]) for piece in cut(part, limit)):
            if any(map(str.isalpha, piece)):  # marks alone are no sound
                is_first = False
                yield piece
    if is_first:
        raise InvalidValue("There is nothing to say: the text has no words, numbers or symbols that are read.", "text")
