"""The training at tiny sizes: every stage runs, is kept, resumes, and ends in a folder that diffusers reads."""

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from builders.shapes.course import Course, follow
from builders.shapes.crew import ALONE, Crew, work_together
from builders.shapes.drawing import draw_many
from builders.shapes.evaluation import draw, evaluate, inpaint, score, vary
from builders.shapes.networks import TINY, load, new_vae, tiny_pipeline
from builders.shapes.scenes import invent, prompt, vocabulary
from builders.shapes.sheet import sheet
from builders.shapes.text_training import CLASSES, facts
from builders.shapes.tokenizer import LENGTH, make_tokenizer, tokenize
from builders.shapes.training import Recipe, train
from builders.shapes.vae_start import pass_colours
from builders.shapes.vae_training import ceiling, to_pictures, to_tensor

SHORT = Recipe(
    sizes=TINY,
    vae=Course("vae", 2, 1e-3, report=1),
    vae_pictures=4,
    text=Course("text", 2, 1e-3, report=1),
    pool=64,
    unet=Course("unet", 3, 1e-3, averaged=True, report=1, keep=2),
    looked_at=0,
)


def test_every_word_is_one_token_and_others_are_bytes(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(tmp_path)
    assert [word for word in vocabulary() if len(tokenizer(word).input_ids) != 3] == []
    strange = "A RED circle, déjà 圆"
    assert tokenizer.unk_token_id not in tokenizer(strange).input_ids[1:-1]
    assert tokenizer("a Red circle").input_ids == tokenizer("a red circle").input_ids
    assert tokenize(tokenizer, ["", "red " * 100]).shape == (2, LENGTH)
    assert json.loads((tmp_path / "vocab.json").read_text()) == tokenizer.get_vocab()


def test_a_new_vae_passes_colours() -> None:
    torch.manual_seed(0)
    pictures, scenes = draw_many(8, seed=3)
    vae = new_vae()
    before, _ = ceiling(vae, pictures, scenes)
    pass_colours(vae, to_tensor(pictures))
    after, _ = ceiling(vae, pictures, scenes)
    assert after > 18 > before


def test_pictures_and_tensors_are_the_same_thing() -> None:
    pictures, scenes = draw_many(4, seed=3)
    again = to_pictures(to_tensor(pictures))
    assert np.array_equal(again, pictures)
    assert score(list(again), scenes).kept["all"]["all"] == 1.0


def test_facts_have_an_answer_in_every_class() -> None:
    for seed in range(50):
        answers = facts(invent(random.Random(seed)))
        assert len(answers) == len(CLASSES)
        assert all(0 <= answer < classes for answer, classes in zip(answers, CLASSES, strict=True))


def test_training_ends_in_a_folder_that_diffusers_reads(tmp_path: Path) -> None:
    lines: list[str] = []
    train(ALONE, tmp_path / "work", tmp_path / "weights", SHORT, lines.append)
    pipeline = load(tmp_path / "weights")
    (picture,) = draw(pipeline, ["a red circle"], steps=2)
    assert picture.shape == (128, 128, 3)
    assert any("unet: step 3 of 3" in line for line in lines)
    assert {f.name for f in (tmp_path / "weights" / "tokenizer").iterdir()} >= {"tokenizer.json", "vocab.json"}


def test_a_broken_off_course_ends_as_an_unbroken_one(tmp_path: Path) -> None:
    def network() -> torch.nn.Module:
        torch.manual_seed(1)
        return torch.nn.Linear(4, 4)

    def run(file: Path, steps: int, model: torch.nn.Module) -> dict[str, torch.Tensor]:
        course = Course("one", 6, 1e-2, averaged=True, keep=3)

        def loss_of(step: int) -> dict[str, torch.Tensor]:
            if step == steps:
                raise KeyboardInterrupt
            return {"loss": model(torch.randn(8, 4)).square().mean()}

        return follow(course, file, model, loss_of, lambda line: None).state_dict()

    whole = run(tmp_path / "whole", 99, network())
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", 4, network())
    resumed = run(tmp_path / "broken", 99, network())
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_the_rate_warms_up_stays_and_falls() -> None:
    course = Course("one", 100, 1.0, warm=10, held=0.5, last=0.1)
    assert [course.rate_at(step) for step in (0, 9, 50)] == pytest.approx([0.1, 1, 1])
    assert course.rate_at(75) == pytest.approx(0.5)
    assert course.rate_at(99) == pytest.approx(0.1)


def _two_parts(crew: Crew, out: Path) -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    model(crew.part(torch.arange(12.0).view(4, 3))).square().mean().backward()
    crew.share_gradients(model)
    torch.save(model.weight.grad, out / str(crew.number))


def test_a_crew_has_the_gradients_of_the_whole_batch(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    work_together(2, tmp_path / "meeting", _two_parts, tmp_path)
    first, second = (torch.load(tmp_path / name) for name in ("0", "1"))
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    model(torch.arange(12.0).view(4, 3)).square().mean().backward()
    assert torch.equal(first, second)
    assert torch.allclose(first, model.weight.grad, rtol=1e-5)


def test_pictures_of_a_tiny_pipeline_reproduce_and_its_edits_keep_what_is_not_masked(tmp_path: Path) -> None:
    pipeline = tiny_pipeline(tmp_path / "tiny")
    again = load(tmp_path / "tiny")
    first, second = (draw(p, ["a red star", "a ring"], steps=2, seed=4) for p in (pipeline, again))
    # What is loaded lies in memory in another order, so sums may round to another level.
    assert all(np.abs(a.astype(int) - b).max() <= 1 for a, b in zip(first, second, strict=True))
    assert not np.array_equal(first[0], first[1])
    assert evaluate(pipeline, 2, steps=1).kept["all"]["pictures"] == 2
    (edit,) = inpaint(pipeline, 1, steps=2)
    untouched = (edit.before == edit.after).all(-1)
    assert 0.4 < untouched.mean() < 0.9
    assert edit.prompt and not edit.right
    (varied,) = vary(pipeline, 1, strength=0.5, steps=2)
    assert not np.array_equal(varied.before, varied.after)


def test_a_sheet_shows_every_picture(tmp_path: Path) -> None:
    pictures, scenes = draw_many(5, seed=1)
    sheet(list(pictures), [prompt(scene) for scene in scenes], [True] * 4 + [False], 2, tmp_path / "docs" / "sheet.png")
    with Image.open(tmp_path / "docs" / "sheet.png") as page:
        assert page.size == (280, 528)
        assert (np.asarray(page.convert("RGB")) == (255, 0, 0)).all(-1).any()


def test_recipes_can_be_longer() -> None:
    from builders.shapes.training import shortened

    assert shortened(SHORT, None, None, 9).unet == replace(SHORT.unet, steps=9)
