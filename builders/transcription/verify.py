"""Compare the networks of a built Whisper with transformers; runs in the process of the export.

The engine gets two clips at once: the recording, and its second half behind a longer prompt, so that the shorter row is
padded on the left. transformers gets each clip alone, unpadded, at fp32 with its own attention.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from builders.transcription import recording
from builders.transcription.onnx_export import ALIGNER, DECODER, ENCODER, cache_names
from builders.transcription.text_distance import kullback_leibler, word_errors
from builders.transcription.whisper_model import SAMPLE_RATE, WhisperModel

Floats = npt.NDArray[np.float32]

MAX_NEW_TOKENS = 64
MASKED = np.float32(-1e9)
PROMPT = " It was a dark and stormy night."


def compare(whisper: Any, model: WhisperModel, engine: Path) -> dict[str, Any]:
    """Return the figures of docs/models.md, "Transcription models"."""
    import torch
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(engine / "tokenizer.json"))
    sound = recording.samples()
    clips = [sound, sound[len(sound) // 2 :]]
    mel = _log_mel(clips, model)
    start = _start(model)
    prompts = [start, [model.tokens["previous"], *tokenizer.encode(PROMPT, add_special_tokens=False).ids, *start]]
    limit = min(MAX_NEW_TOKENS, model.max_tokens - max(len(prompt) for prompt in prompts))
    with torch.inference_mode():
        sources = [_Source(whisper, model, row, prompt, limit) for row, prompt in zip(mel, prompts, strict=True)]
        part = mel[:, :, : 2 * (model.max_positions // 3)]
        short = _cross_cache(whisper, model, _encode_any_length(whisper, part))
    encoder = _Encoder(engine)
    cross = encoder.run(mel)
    expected = [np.concatenate(arrays) for arrays in zip(*(source.cross for source in sources), strict=True)]
    pairs = [*zip(cross, expected, strict=True), *zip(encoder.run(part), short, strict=True)]

    decoder = _Decoder(engine, model)
    rows = decoder.decode(cross, prompts, limit, forced=[source.tokens for source in sources])
    ours = np.concatenate([logits for _, logits in rows])
    theirs = np.concatenate([source.logits for source in sources])
    # Where every token is the source's, the engine's own text is the same, because it is greedy too.
    identical = all(tokens == source.tokens for (tokens, _), source in zip(rows, sources, strict=True))
    texts = rows if identical else decoder.decode(cross, prompts, limit)
    words = [
        word_errors(tokenizer.decode(source.tokens), tokenizer.decode(tokens))
        for (tokens, _), source in zip(texts, sources, strict=True)
    ]
    divergence = kullback_leibler(theirs, ours)
    return {
        "tokens": len(ours),
        "encoder_error": max(_relative(ours, theirs) for ours, theirs in pairs),
        "encoder_difference": max(float(np.abs(ours - theirs).max()) for ours, theirs in pairs),
        "divergence": float(divergence.mean()),
        "divergence_max": float(divergence.max()),
        "logit_difference": float(np.abs(ours - theirs).max()),
        "agreement": float(np.mean(ours.argmax(-1) == theirs.argmax(-1))),
        "alignment_difference": _alignment_difference(engine, model, cross, prompts, sources),
        "identical_texts": identical,
        "word_error": sum(wrong for wrong, _ in words) / max(1, sum(count for _, count in words)),
    }


def _start(model: WhisperModel) -> list[int]:
    """Return the tokens before a transcript without timestamps."""
    tokens = model.tokens
    task = [model.languages["en"], tokens["transcribe"]] if model.multilingual else []
    return [tokens["start_of_transcript"], *task, tokens["no_timestamps"]]


def _log_mel(clips: Sequence[Floats], model: WhisperModel) -> Floats:
    from transformers import WhisperFeatureExtractor

    extractor = WhisperFeatureExtractor(feature_size=model.num_mels, chunk_length=model.max_positions // 50)
    found: Floats = extractor(list(clips), sampling_rate=SAMPLE_RATE, return_tensors="np").input_features
    return found[:, :, : 2 * model.max_positions]


class _Source:
    """The results of transformers for one clip [mels, frames] after a prompt."""

    def __init__(self, whisper: Any, model: WhisperModel, mel: Floats, prompt: list[int], limit: int) -> None:
        import torch

        states = whisper.model.encoder(torch.from_numpy(mel)[None]).last_hidden_state
        self.cross = _cross_cache(whisper, model, states)
        self.tokens: list[int] = []
        logits, past, new = [], None, prompt
        while len(self.tokens) < limit and model.tokens["end_of_text"] not in self.tokens:
            answer = whisper(
                encoder_outputs=(states,), decoder_input_ids=torch.tensor([new]), past_key_values=past, use_cache=True
            )
            past = answer.past_key_values
            logits.append(answer.logits[0, -1].numpy())
            self.tokens.append(_choose(logits[-1], len(self.tokens), model))
            new = self.tokens[-1:]
        self.logits: Floats = np.stack(logits)
        whole = torch.tensor([prompt + self.tokens])
        attentions = whisper(
            encoder_outputs=(states,), decoder_input_ids=whole, output_attentions=True
        ).cross_attentions
        self.alignment: Floats = np.stack([attentions[layer][0, head].numpy() for layer, head in model.alignment_heads])


def _choose(logits: Floats, position: int, model: WhisperModel) -> int:
    allowed = logits.copy()
    allowed[model.suppress] = -np.inf
    if position == 0:
        allowed[model.suppress_at_begin] = -np.inf
    return int(allowed.argmax())


def _encode_any_length(whisper: Any, mel: Floats) -> Any:
    """Encode fewer frames than transformers' encoder takes, with its layers."""
    import torch
    from torch.nn.functional import gelu

    encoder = whisper.model.encoder
    states = gelu(encoder.conv2(gelu(encoder.conv1(torch.from_numpy(mel))))).permute(0, 2, 1)
    states = states + encoder.embed_positions.weight[: states.shape[1]]
    for layer in encoder.layers:
        states = layer(states, None)
    return encoder.layer_norm(states)


def _cross_cache(whisper: Any, model: WhisperModel, states: Any) -> list[Floats]:
    """Return keys [n, heads, size, positions] and values [n, heads, positions, size] of each layer."""
    shape = (states.shape[0], states.shape[1], model.num_heads, model.head_size)
    found = []
    for layer in whisper.model.decoder.layers:
        attention = layer.encoder_attn
        found.append(attention.k_proj(states).view(shape).permute(0, 2, 3, 1).numpy())
        found.append(attention.v_proj(states).view(shape).transpose(1, 2).numpy())
    return found


def _session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class _Encoder:
    def __init__(self, engine: Path) -> None:
        self._session = _session(engine / ENCODER)

    def run(self, mel: Floats) -> list[Floats]:
        """Return the cross-attention cache of a batch."""
        found: list[Floats] = self._session.run(None, {"mel": np.ascontiguousarray(mel)})
        return found


class _Decoder:
    """Greedy decoding with the engine's decoder and its cache."""

    def __init__(self, engine: Path, model: WhisperModel) -> None:
        self._session = _session(engine / DECODER)
        self._model = model

    def decode(
        self,
        cross: Sequence[Floats],
        prompts: Sequence[list[int]],
        limit: int,
        forced: Sequence[list[int]] | None = None,
    ) -> list[tuple[list[int], Floats]]:
        """Return the tokens that the engine chooses for each row, at most `limit`, and the logits of each.

        With `forced`, each row goes on with these tokens whatever is chosen, and ends with them.
        """
        end = self._model.tokens["end_of_text"]
        width = max(len(prompt) for prompt in prompts)
        padding = np.array([width - len(prompt) for prompt in prompts])
        new = np.array([[end] * (width - len(prompt)) + prompt for prompt in prompts], np.int64)
        rows = [_Row(self._model, limit, forced[number] if forced else None) for number in range(len(prompts))]
        past, done = empty_cache(self._model, len(prompts)), 0
        while not all(row.has_ended for row in rows):
            mask = causal_mask(padding, done, new.shape[1])
            positions = np.maximum(np.arange(done, done + new.shape[1])[None] - padding[:, None], 0)
            inputs = decoder_inputs(self._model, new, positions, mask, past, cross)
            logits, *past = self._session.run(None, inputs)
            done += new.shape[1]
            new = np.array([[row.take(found)] for row, found in zip(rows, logits[:, -1], strict=True)], np.int64)
        return [(row.chosen, np.stack(row.logits)) for row in rows]


class _Row:
    """One row of a greedy decoding."""

    def __init__(self, model: WhisperModel, limit: int, forced: list[int] | None) -> None:
        self._model, self._forced = model, forced
        self._limit = limit if forced is None else len(forced)
        self._end = model.tokens["end_of_text"]
        self.chosen: list[int] = []
        self.logits: list[Floats] = []

    @property
    def has_ended(self) -> bool:
        return len(self.chosen) == self._limit or (self._forced is None and self._end in self.chosen)

    def take(self, logits: Floats) -> int:
        """Choose a token, and return the one to go on with."""
        if self.has_ended:
            return self._end
        self.logits.append(logits)
        self.chosen.append(_choose(logits, len(self.chosen), self._model))
        return self.chosen[-1] if self._forced is None else self._forced[len(self.chosen) - 1]


def causal_mask(padding: npt.NDArray[np.int64], past: int, new: int) -> Floats:
    """Return the mask [n, 1, new, past + new] of rows whose first `padding` positions are not read."""
    columns, rows = np.arange(past + new), past + np.arange(new)
    hidden = (columns[None] > rows[:, None])[None] | (columns[None, None] < padding[:, None, None])
    return np.where(hidden, MASKED, np.float32(0))[:, None]


def empty_cache(model: WhisperModel, rows: int) -> list[Floats]:
    """Return keys and values of no tokens for each layer."""
    key, value = (rows, model.num_heads, model.head_size, 0), (rows, model.num_heads, 0, model.head_size)
    return [np.zeros(shape, np.float32) for _ in range(model.num_layers) for shape in (key, value)]


def decoder_inputs(
    model: WhisperModel, ids: Any, positions: Any, mask: Floats, past: Sequence[Floats], cross: Sequence[Floats]
) -> dict[str, Any]:
    """Return the inputs of a decoder by name."""
    inputs = {"input_ids": ids, "positions": positions, "mask": mask}
    inputs |= zip(cache_names("past", model.num_layers), past, strict=True)
    return inputs | dict(zip(cache_names("cross", model.num_layers), cross, strict=True))


def _alignment_difference(
    engine: Path, model: WhisperModel, cross: Sequence[Floats], prompts: Sequence[list[int]], sources: Sequence[_Source]
) -> float:
    session = _session(engine / ALIGNER)
    largest = 0.0
    for row, (prompt, source) in enumerate(zip(prompts, sources, strict=True)):
        ids = np.array([prompt + source.tokens], np.int64)
        mask = causal_mask(np.zeros(1, np.int64), 0, ids.shape[1])
        mine = [array[row : row + 1] for array in cross]
        inputs = decoder_inputs(model, ids, np.arange(ids.shape[1])[None], mask, empty_cache(model, 1), mine)
        (alignment,) = session.run(["alignment"], inputs)
        largest = max(largest, float(np.abs(alignment[0] - source.alignment).max()))
    return largest


def _relative(ours: Floats, theirs: Floats) -> float:
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))
