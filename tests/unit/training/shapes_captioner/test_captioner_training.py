"""The training at tiny sizes: both stages run, are saved, resume, and give a folder that transformers reads."""

import json
import random
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from builders.checkpoint import Checkpoint
from builders.vision import idefics3
from training.common.process_group import SINGLE_PROCESS, ProcessGroup
from training.common.training_loop import StageConfig
from training.shapes_captioner.conversations import DESCRIBE, NO_PICTURE, sentences
from training.shapes_captioner.evaluation import answer, evaluate, held_out_pictures, score
from training.shapes_captioner.networks import (
    CONFIG,
    IMAGE_TEXT,
    IMAGE_TOKENS,
    TINY,
    load_captioner,
    new_captioner,
    tiny_captioner,
    to_tiles,
)
from training.shapes_captioner.pictures import Picture, PlacedShape
from training.shapes_captioner.tokenizer import END, IMAGE, START, cut_merges, make_tokenizer, read_merges, write_merges
from training.shapes_captioner.train import CAPTIONER_STAGE, VISION_STAGE, TrainingConfig, train, with_steps
from training.shapes_captioner.train_captioner import IGNORED, answer_loss, sample_conversation
from training.shapes_captioner.train_vision import VisionPretraining, cell_labels

SHORT = TrainingConfig(
    sizes=TINY,
    vision=StageConfig("vision", 3, 1e-3, log_steps=1),
    captioner=StageConfig("captioner", 3, 1e-3, uses_ema=True, log_steps=1, save_steps=2),
    num_evaluated_pictures=0,
)
RED = Image.new("RGB", (100, 60), "red")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    tiny_captioner(folder)
    return folder


def test_a_cut_tokenizer_keeps_the_tokens_of_the_words_that_it_was_cut_for(tmp_path: Path) -> None:
    texts = sentences()[:300]
    whole = Tokenizer(models.BPE())
    whole.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    whole.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=900, initial_alphabet=alphabet, show_progress=False)
    whole.train_from_iterator([*texts, "of other words, elsewhere in the world, there are many more " * 50], trainer)
    merges = cut_merges(whole, texts[:100], frequent=20)
    assert 20 < len(merges) < len(json.loads(whole.to_str())["model"]["merges"])
    write_merges(merges, tmp_path / "merges.txt")
    cut = make_tokenizer(read_merges(tmp_path / "merges.txt"))
    assert [cut.encode(text).tokens for text in texts[:100]] == [whole.encode(text).tokens for text in texts[:100]]


def test_other_words_survive_the_tokenizer() -> None:
    tokenizer = make_tokenizer()
    strange = "Déjà vu: 圆 quintessence 2026"
    assert tokenizer.decode(tokenizer.encode(strange).ids) == strange
    assert tokenizer.encode(IMAGE_TEXT).tokens.count(IMAGE) == IMAGE_TOKENS
    assert len(tokenizer.encode("a large red circle to the left of a small purple triangle").ids) == 12


def test_the_folder_is_an_idefics3_with_its_processor(tiny: Path) -> None:
    from transformers import AutoProcessor, Idefics3ForConditionalGeneration

    processor = AutoProcessor.from_pretrained(tiny)
    model, tokenizer = load_captioner(tiny)
    assert isinstance(model, Idefics3ForConditionalGeneration)
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": DESCRIBE[0]}]}]
    prompt = processor.apply_chat_template(chat, add_generation_prompt=True)
    inputs = processor(images=[[RED]], text=[prompt], return_tensors="pt")
    expected = f"{START}user\n{IMAGE_TEXT}{DESCRIBE[0]}{END}\n{START}assistant\n"
    assert inputs["input_ids"][0].tolist() == tokenizer.encode(expected).ids
    assert torch.equal(inputs["pixel_values"][0], to_tiles([RED]))
    ids = model.generate(**inputs, max_new_tokens=48, do_sample=False)[:, inputs["input_ids"].shape[1] :]
    assert processor.batch_decode(ids, skip_special_tokens=True) == answer(model, tokenizer, [RED])


def test_the_backend_prepares_pictures_as_the_training_does(tiny: Path) -> None:
    found = idefics3.vision_config(Checkpoint(tiny))
    ours = asdict(replace(CONFIG, image_token_id=found["image_token_id"]))
    assert {name: list(value) if isinstance(value, tuple) else value for name, value in ours.items()} == found


def test_a_conversation_is_what_the_template_renders(tiny: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny)
    backend = make_tokenizer()
    for seed in range(40):
        row = sample_conversation(backend, random.Random(seed), 2)
        text = backend.decode(row.ids, skip_special_tokens=False)
        assert backend.encode(text).ids == row.ids
        turns = [part.split("\n", 1) for part in text.replace(IMAGE_TEXT, IMAGE).split(f"{END}\n") if part]
        chat = [{"role": role.removeprefix(START), "content": content} for role, content in turns]
        assert tokenizer.apply_chat_template(chat, tokenize=False) == text.replace(IMAGE_TEXT, IMAGE)
        said = [token for token in row.labels if token != IGNORED]
        answers = [turn["content"] for turn in chat if turn["role"] == "assistant"]
        assert backend.decode(said, skip_special_tokens=False) == "".join(f"{one}{END}" for one in answers)
        assert row.ids.count(backend.token_to_id(IMAGE)) == IMAGE_TOKENS * len(row.images)
        assert row.images or set(answers) == {NO_PICTURE}


def test_the_loss_of_a_batch_is_that_of_its_rows() -> None:
    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    model = new_captioner(tokenizer, TINY)
    rows = [sample_conversation(tokenizer, random.Random(seed), 1, 2) for seed in range(4)]
    counts = [sum(token != IGNORED for token in row.labels) for row in rows]
    with torch.inference_mode():
        alone = [float(answer_loss(model, [row], 0)) * count for row, count in zip(rows, counts, strict=True)]
        together = float(answer_loss(model, rows, 0))
    assert together == pytest.approx(sum(alone) / sum(counts), rel=1e-4)


def test_cells_are_labelled_by_what_covers_them() -> None:
    labels = cell_labels(Picture("white", (PlacedShape("red", "circle", 0.25, 0.25, 0.15),), "free")).reshape(4, 4, 4)
    assert (labels[:2, :2, :3] == [1, 1, 1]).all() and (labels[..., 3] == 7).all()
    assert (labels[2:, :, :3] == 0).all()
    unclear = cell_labels(Picture("white", (PlacedShape("red", "circle", 0.25, 0.25, 0.18),), "free"))
    assert unclear[0].tolist() == [1, 1, IGNORED, 7]
    assert (cell_labels(Picture("red", (), "free"))[:, :3] == 0).all()
    high = cell_labels(Picture("white", (PlacedShape("red", "ring", 0.5, 0.75, 0.22),), "free", 0.5)).reshape(4, 4, 4)
    assert (high[:2, :, 0] == 0).all() and (high[2:, 1:3, 0] == 5).all()


def test_muon_updates_the_matrices_of_all_layers() -> None:
    captioner = new_captioner(make_tokenizer(), TINY)
    for network, stage in ((VisionPretraining(captioner, TINY), VISION_STAGE), (captioner, CAPTIONER_STAGE)):
        names = [name for name, _ in network.named_parameters()]
        assert isinstance(stage.muon_prefix, tuple)
        assert all(any(name.startswith(prefix) for name in names) for prefix in stage.muon_prefix)
        assert not any(name.startswith(stage.muon_prefix) for name in names if "embed" in name or "head" in name)


def test_training_ends_in_a_folder_that_answers(tmp_path: Path) -> None:
    lines: list[str] = []
    train(SINGLE_PROCESS, tmp_path / "work", tmp_path / "weights", SHORT, lines.append)
    model, tokenizer = load_captioner(tmp_path / "weights")
    assert len(evaluate(model, tokenizer, held_out_pictures(4)).pass_rates["all"]) == 9
    assert len(answer(model, tokenizer, [RED] * 3, temperature=1.0)) == 3
    assert all(any(f"{stage}: step 3 of 3" in line for line in lines) for stage in ("vision", "captioner"))
    trained = torch.load(tmp_path / "work" / "vision.pt", weights_only=True)["network"]
    assert "vision.post_layernorm.weight" in trained


def test_an_interrupted_training_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    lines: list[str] = []
    for name, steps in (("whole", (3,)), ("parts", (2, 3))):
        for count in steps:
            config = replace(SHORT, captioner=replace(SHORT.captioner, steps=3, save_steps=1))
            stop = StopAfter(count, lines)
            try:
                train(SINGLE_PROCESS, tmp_path / name, tmp_path / f"{name}-weights", config, stop)
            except InterruptedError:
                assert count < 3
    assert any("captioner: 2 of 3 steps are done already" in line for line in lines)
    first, second = (
        torch.load(tmp_path / name / "captioner.pt", weights_only=True)["average"] for name in ("whole", "parts")
    )
    assert all(torch.allclose(first[key], second[key], atol=1e-5) for key in first)


class StopAfter:
    """A log that ends the training when the captioner logs the step after `step`."""

    def __init__(self, step: int, lines: list[str]) -> None:
        self._stop, self._lines = f"captioner: step {step + 1} of", lines

    def __call__(self, line: str) -> None:
        if line.startswith(self._stop):
            raise InterruptedError
        self._lines.append(line)


def test_processes_take_different_rows_of_one_batch() -> None:
    rows = [ProcessGroup(rank, 2).shard(range(8)) for rank in range(2)]
    assert sorted([*rows[0], *rows[1]]) == list(range(8))


def test_scores_are_by_kind() -> None:
    one = Picture("white", (PlacedShape("red", "circle", 0.5, 0.5, 0.22),), "one")
    scores = score(["a large red circle in the centre on a white background", "a cat"], [one, one])
    assert scores.pass_rates["one"]["all"] == 0.5 and scores.pass_rates["one"]["number"] == 2
    assert "| one | 2 |" in scores.table()


def test_other_numbers_of_steps() -> None:
    config = with_steps(TrainingConfig(), None, 7)
    assert (config.vision.steps, config.captioner.steps) == (VISION_STAGE.steps, 7)
    assert np.isclose(config.captioner.learning_rate, CAPTIONER_STAGE.learning_rate)
