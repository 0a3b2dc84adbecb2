"""The training at tiny sizes: every stage runs, is saved, resumes, and gives a folder that diffusers reads."""

import json
import random
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from training.common.process_group import SINGLE_PROCESS, ProcessGroup, run_in_processes
from training.common.training_loop import StageConfig, run_training_loop
from training.shapes.contact_sheet import write_contact_sheet
from training.shapes.evaluation import evaluate, generate_images, image_to_image, inpaint, score
from training.shapes.networks import TINY, load_pipeline, new_vae, tiny_pipeline
from training.shapes.rendering import render_dataset
from training.shapes.scenes import sample_scene, scene_prompt, vocabulary
from training.shapes.tokenizer import MAX_PROMPT_TOKENS, make_tokenizer, tokenize
from training.shapes.train import TrainingConfig, train
from training.shapes.train_text_encoder import NUM_CLASSES, scene_labels
from training.shapes.train_vae import reconstruction_quality, to_images, to_tensor
from training.shapes.vae_initialization import init_colour_passthrough

SHORT = TrainingConfig(
    sizes=TINY,
    vae=StageConfig("vae", 2, 1e-3, log_steps=1),
    num_vae_images=4,
    text=StageConfig("text", 2, 1e-3, log_steps=1),
    num_latents=64,
    unet=StageConfig("unet", 3, 1e-3, uses_ema=True, log_steps=1, save_steps=2),
    num_evaluated_images=0,
)


def test_every_word_is_one_token_and_others_are_bytes(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(tmp_path)
    assert [word for word in vocabulary() if len(tokenizer(word).input_ids) != 3] == []
    strange = "A RED circle, déjà 圆"
    assert tokenizer.unk_token_id not in tokenizer(strange).input_ids[1:-1]
    assert tokenizer("a Red circle").input_ids == tokenizer("a red circle").input_ids
    assert tokenize(tokenizer, ["", "red " * 100]).shape == (2, MAX_PROMPT_TOKENS)
    assert json.loads((tmp_path / "vocab.json").read_text()) == tokenizer.get_vocab()


def test_a_new_vae_passes_colours() -> None:
    torch.manual_seed(0)
    images, scenes = render_dataset(8, seed=3)
    vae = new_vae()
    before, _ = reconstruction_quality(vae, images, scenes)
    init_colour_passthrough(vae, to_tensor(images))
    after, _ = reconstruction_quality(vae, images, scenes)
    assert after > 18 > before


def test_images_survive_the_conversion_to_tensors() -> None:
    images, scenes = render_dataset(4, seed=3)
    again = to_images(to_tensor(images))
    assert np.array_equal(again, images)
    assert score(list(again), scenes).pass_rates["all"]["all"] == 1.0


def test_every_label_is_within_its_classes() -> None:
    for seed in range(50):
        answers = scene_labels(sample_scene(random.Random(seed)))
        assert len(answers) == len(NUM_CLASSES)
        assert all(0 <= answer < classes for answer, classes in zip(answers, NUM_CLASSES, strict=True))


def test_training_ends_in_a_folder_that_diffusers_reads(tmp_path: Path) -> None:
    lines: list[str] = []
    train(SINGLE_PROCESS, tmp_path / "work", tmp_path / "weights", SHORT, lines.append)
    pipeline = load_pipeline(tmp_path / "weights")
    (image,) = generate_images(pipeline, ["a red circle"], steps=2)
    assert image.shape == (128, 128, 3)
    assert any("unet: step 3 of 3" in line for line in lines)
    assert {f.name for f in (tmp_path / "weights" / "tokenizer").iterdir()} >= {"tokenizer.json", "vocab.json"}


@pytest.mark.parametrize("muon_prefix", [None, ""])
def test_a_resumed_stage_gives_the_same_weights_as_an_uninterrupted_one(
    muon_prefix: str | None, tmp_path: Path
) -> None:
    def network() -> torch.nn.Module:
        torch.manual_seed(1)
        return torch.nn.Linear(4, 4)

    def run(file: Path, steps: int, model: torch.nn.Module) -> dict[str, torch.Tensor]:
        stage = StageConfig("one", 6, 1e-2, uses_ema=True, save_steps=3, muon_prefix=muon_prefix)

        def loss_of(step: int) -> dict[str, torch.Tensor]:
            if step == steps:
                raise KeyboardInterrupt
            return {"loss": model(torch.randn(8, 4)).square().mean()}

        return run_training_loop(stage, file, model, loss_of, lambda line: None).state_dict()

    whole = run(tmp_path / "whole", 99, network())
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", 4, network())
    resumed = run(tmp_path / "broken", 99, network())
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def _mean_square(network: torch.nn.Module, inputs: torch.Tensor, step: int) -> dict[str, torch.Tensor]:
    return {"loss": network(inputs).square().mean()}


def test_muon_updates_the_matrices_below_its_prefix(tmp_path: Path) -> None:
    results = []
    for prefix in (None, "0."):
        torch.manual_seed(1)
        network = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
        inputs, stage = torch.randn(8, 4), StageConfig("one", 3, 1e-2, warmup_steps=1, muon_prefix=prefix)
        loss_of = partial(_mean_square, network, inputs)
        run_training_loop(stage, tmp_path / f"{prefix}.pt", network, loss_of, lambda line: None)
        states = torch.load(tmp_path / f"{prefix}.pt", weights_only=True)["optimizers"]
        results.append((network[0].weight, [len(state["state"]) for state in states]))
    assert [counts for _, counts in results] == [[4], [3, 1]]
    assert not torch.equal(results[0][0], results[1][0])


def test_the_learning_rate_warms_up_stays_and_falls() -> None:
    stage = StageConfig("one", 100, 1.0, warmup_steps=10, constant_fraction=0.5, final_fraction=0.1)
    assert [stage.learning_rate_at(step) for step in (0, 9, 50)] == pytest.approx([0.1, 1, 1])
    assert stage.learning_rate_at(75) == pytest.approx(0.5)
    assert stage.learning_rate_at(99) == pytest.approx(0.1)


def _train_on_shard(group: ProcessGroup, out: Path) -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    model(group.shard(torch.arange(12.0).view(4, 3))).square().mean().backward()
    group.average_gradients(model)
    torch.save(model.weight.grad, out / str(group.rank))


def test_a_process_group_has_the_gradients_of_the_whole_batch(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    run_in_processes(2, tmp_path / "meeting", _train_on_shard, tmp_path)
    first, second = (torch.load(tmp_path / name) for name in ("0", "1"))
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    model(torch.arange(12.0).view(4, 3)).square().mean().backward()
    assert torch.equal(first, second)
    assert torch.allclose(first, model.weight.grad, rtol=1e-5)


def test_a_tiny_pipeline_reproduces_images_and_its_edits_keep_unmasked_pixels(tmp_path: Path) -> None:
    pipeline = tiny_pipeline(tmp_path / "tiny")
    again = load_pipeline(tmp_path / "tiny")
    first, second = (generate_images(p, ["a red star", "a ring"], steps=2, seed=4) for p in (pipeline, again))
    # Loaded weights have another memory layout, so sums may round differently.
    assert all(np.abs(a.astype(int) - b).max() <= 1 for a, b in zip(first, second, strict=True))
    assert not np.array_equal(first[0], first[1])
    assert evaluate(pipeline, 2, steps=1).pass_rates["all"]["pictures"] == 2
    (edit,) = inpaint(pipeline, 1, steps=2)
    untouched = (edit.before == edit.after).all(-1)
    assert 0.4 < untouched.mean() < 0.9
    assert edit.prompt and not edit.is_correct
    (varied,) = image_to_image(pipeline, 1, strength=0.5, steps=2)
    assert not np.array_equal(varied.before, varied.after)


def test_the_contact_sheet_shows_every_image(tmp_path: Path) -> None:
    images, scenes = render_dataset(5, seed=1)
    write_contact_sheet(
        list(images),
        [scene_prompt(scene) for scene in scenes],
        [True] * 4 + [False],
        2,
        tmp_path / "docs" / "sheet.png",
    )
    with Image.open(tmp_path / "docs" / "sheet.png") as page:
        assert page.size == (280, 528)
        assert (np.asarray(page.convert("RGB")) == (255, 0, 0)).all(-1).any()


def test_steps_of_a_stage_can_be_changed() -> None:
    from training.shapes.train import with_steps

    assert with_steps(SHORT, None, None, 9).unet == replace(SHORT.unet, steps=9)
