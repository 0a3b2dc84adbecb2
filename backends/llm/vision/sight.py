"""What the desk asks about pictures: what stands for them in a prompt, and their vectors."""

from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from backends.llm.engine import Pictures, Tokens
from backends.llm.literal import Spans, join, split
from backends.llm.vision.encoder import Encoder
from backends.llm.vision.facts import Facts, read_facts
from backends.llm.vision.gallery import Features, Gallery
from backends.llm.vision.picture import Picture
from backends.llm.vision.tiles import Cut, cut, plan
from backends.serving.errors import Cancelled, InvalidValue

# Pictures that were encoded lately; a large one takes two to ten megabytes.
_KEPT = 256 << 20


class Sight:
    """The eyes of one model. All methods may be called from any thread."""

    def __init__(self, facts: Facts, tokenizer: Tokenizer, encoder: Callable[..., Any]) -> None:
        """`encoder` makes vectors float32[n, hidden size] of a tile float32[3, tile, tile]."""
        self._facts = facts
        self._tokenizer = tokenizer
        self._encoder = encoder
        self.gallery = Gallery(_KEPT)

    def open(self, images: Sequence[bytes]) -> tuple[Picture, ...]:
        """Read the headers of files in base64. Raises `InvalidValue`, naming `image`."""
        return tuple(Picture(encoded, number) for number, encoded in enumerate(images, 1))

    def expand_text(self, document: bytes, pictures: Sequence[Picture], spans: Spans = ()) -> tuple[bytes, Spans]:
        """Put what stands for each picture in the place of its mark; marks in `spans` are none. Raises `InvalidValue`.

        Returns the text, and where in it the spans are now. It names `text_input` where there are marks and no pictures
        at all, `image` where there are some.
        """
        mark = self._facts.image_token.encode()
        parts = list(split(document, spans))
        self._check(sum(part.count(mark) for part, literal in parts if not literal), len(pictures), "text_input")
        left = iter(pictures)
        expanded: list[tuple[bytes, bool]] = []
        for part, literal in parts:
            first, *others = [part] if literal else part.split(mark)
            expanded.append((first, literal))
            for picture, other in zip(islice(left, len(others)), others, strict=True):
                expanded += ((self._expansion(plan(picture.size, self._facts)).encode(), False), (other, False))
        return join(expanded)

    def expand_tokens(self, tokens: npt.NDArray[np.integer[Any]], pictures: Sequence[Picture]) -> Tokens:
        """The same for a prompt of token ids, int64[n]; it names `token_ids`."""
        flat = tokens.reshape(-1).astype(np.int64)
        marks = np.flatnonzero(flat == self._facts.image_token_id)
        self._check(len(marks), len(pictures), "token_ids")
        parts, start = [], 0
        for picture, mark in zip(pictures, marks, strict=True):
            text = self._expansion(plan(picture.size, self._facts))
            inside = self._tokenizer.encode(text, add_special_tokens=False).ids
            parts += [flat[start:mark], np.array(inside, np.int64)]
            start = mark + 1
        return np.concatenate([*parts, flat[start:]])

    def look(self, tokens: Tokens, pictures: Sequence[Picture], is_cancelled: Callable[[], bool]) -> Pictures:
        """Encode pictures for an expanded prompt. Raises `InvalidValue`, naming `image`, or `Cancelled`."""
        features = tuple(self._features(picture, is_cancelled) for picture in pictures)
        places = np.flatnonzero(tokens == self._facts.image_token_id)
        ids = np.concatenate([one.ids for one in features])
        if len(places) != len(ids):
            raise InvalidValue(f"The prompt has {len(places)} places for {len(ids)} vectors of pictures.", "image")
        read = tokens.copy()
        read[places] = ids
        return Pictures(read, features)

    def _features(self, picture: Picture, is_cancelled: Callable[[], bool]) -> Features:
        if found := self.gallery.get(picture.digest):
            return found
        how = plan(picture.size, self._facts)
        vectors = []
        for tile in cut(picture.rgb(), how, self._facts):
            if is_cancelled():
                raise Cancelled("The request was cancelled.")
            vectors.append(self._encoder(tile))
        return self.gallery.put(picture.digest, np.concatenate(vectors))

    def _expansion(self, how: Cut) -> str:
        """What the family's processors write for a picture.

        Source: transformers, `get_image_prompt_string` in `models/smolvlm/processing_smolvlm.py`.
        """
        facts = self._facts
        vectors = facts.image_token * facts.tokens_per_tile
        text = ""
        for row in range(1, how.rows + 1):
            for column in range(1, how.columns + 1):
                text += facts.fake_token + facts.tile_token.format(row=row, column=column) + vectors
            text += "\n"
        return text + ("\n" if how.rows else "") + facts.fake_token + facts.global_token + vectors + facts.fake_token

    def _check(self, marks: int, pictures: int, prompt: str) -> None:
        if marks and not pictures:
            raise InvalidValue(
                f"The prompt has {marks} of the marks {self._facts.image_token}, each of which stands for a picture; "
                "none came with the request.",
                prompt,
            )
        if marks != pictures:
            raise InvalidValue(
                f"The prompt has {marks} of the marks {self._facts.image_token}, and the request has {pictures} "
                "pictures; each picture has one mark.",
                "image",
            )


def load_sight(folder: Path, tokenizer: Tokenizer, threads: int) -> Sight:
    """Read a model's facts and start its encoder. Raises `FileNotFoundError`, `ValueError`, or as `Encoder`."""
    return Sight(read_facts(folder), tokenizer, Encoder(folder / "vision.onnx", threads))
