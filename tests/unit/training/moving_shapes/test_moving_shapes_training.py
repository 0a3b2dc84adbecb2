"""The training at tiny sizes: every stage runs, is saved, resumes, and gives a folder that diffusers reads."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from training.common.process_group import SINGLE_PROCESS
from training.common.training_loop import StageConfig
from training.moving_shapes.contact_sheet import write_contact_sheet
from training.moving_shapes.evaluation import edit_rates, evaluate, generate_clips, image_to_video, remix
from training.moving_shapes.latent_dataset import load_or_encode_latents
from training.moving_shapes.networks import TINY, load_pipeline, new_vae, tiny_pipeline
from training.moving_shapes.prompts import scene_prompt, vocabulary
from training.moving_shapes.rendering import render_dataset
from training.moving_shapes.scenes import sample_scene
from training.moving_shapes.tokenizer import MAX_PROMPT_TOKENS, make_tokenizer, tokenize
from training.moving_shapes.train import TrainingConfig, train, with_steps
from training.moving_shapes.train_text_encoder import NUM_CLASSES, scene_labels
from training.moving_shapes.train_transformer import encode_prompts, sample_noise_levels
from training.moving_shapes.train_vae import reconstruction_decibels, to_clips, to_tensor
from training.moving_shapes.vae_initialization import init_colour_passthrough

SHORT = TrainingConfig(
    sizes=TINY,
    vae=StageConfig("vae", 2, 1e-3, log_steps=1),
    text=StageConfig("text", 2, 1e-3, log_steps=1),
    num_latents=64,
    transformer=StageConfig("transformer", 5, 1e-3, uses_ema=True, log_steps=1, save_steps=2),
    decoder=StageConfig("decoder", 2, 5e-3, warmup_steps=1, log_steps=1),
    num_evaluated_clips=0,
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    tiny_pipeline(folder)
    return folder


def test_every_word_is_one_token_and_others_are_letters_or_bytes(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    make_tokenizer(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert [word for word in vocabulary() if len(tokenizer(word).input_ids) != 2] == []
    strange = "A RED circle, déjà 圆"
    assert tokenizer.unk_token_id not in tokenizer(strange).input_ids
    assert tokenizer.decode(tokenizer(strange).input_ids, skip_special_tokens=True) == strange.lower()
    assert tokenizer("a  Red circle").input_ids == tokenizer("a red circle").input_ids
    ids, mask = tokenize(tokenizer, ["", "red " * 100])
    assert ids.shape == mask.shape == (2, MAX_PROMPT_TOKENS)
    assert mask.sum(1).tolist() == [1, MAX_PROMPT_TOKENS]


def test_a_new_vae_passes_colours() -> None:
    torch.manual_seed(0)
    clips, _ = render_dataset(4, seed=3)
    vae = new_vae()
    before = reconstruction_decibels(vae, clips)
    init_colour_passthrough(vae, to_tensor(clips))
    assert reconstruction_decibels(vae, clips) > 17 > before


def test_clips_survive_the_conversion_to_tensors() -> None:
    clips, _ = render_dataset(2, seed=3)
    assert np.array_equal(to_clips(to_tensor(clips)), clips)


def test_every_label_is_within_its_classes() -> None:
    for seed in range(50):
        answers = scene_labels(sample_scene(random.Random(seed)))
        assert all(0 < answer < classes for answer, classes in zip(answers, NUM_CLASSES, strict=True))


def test_half_of_the_noise_levels_are_above_seven_tenths() -> None:
    torch.manual_seed(0)
    levels = sample_noise_levels(64)
    assert levels.shape == (64,)
    assert levels.min() > 0 and levels.max() <= 1
    assert 0.45 < (levels > 0.7).float().mean() < 0.55


def test_training_ends_in_a_folder_that_diffusers_reads(tmp_path: Path) -> None:
    lines: list[str] = []
    train(SINGLE_PROCESS, tmp_path / "work", tmp_path / "weights", SHORT, lines.append)
    pipeline = load_pipeline(tmp_path / "weights")
    (clip,) = generate_clips(pipeline, ["a red circle moves left"], steps=2)
    assert clip.shape == (17, 64, 64, 3)
    assert any("transformer: step 5 of 5" in line for line in lines)
    assert any("decoder: step 2 of 2" in line for line in lines)
    # The decoder is trained last, and the encoder that made the latents stays.
    first, last = (
        torch.load(tmp_path / "work" / "vae.pt", weights_only=True)["network"],
        pipeline.vae.state_dict(),
    )
    changed = {name.split(".")[0] for name in last if not torch.allclose(first[name], last[name], rtol=0.01, atol=1e-4)}
    assert "decoder" in changed <= {"decoder", "post_quant_conv"}
    assert min(pipeline.vae.config.latents_std) > 0


def test_the_latents_have_unit_variance_and_weights_of_mean_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    vae = new_vae(TINY)
    clips, _ = render_dataset(16, seed=5)
    deviations, means = torch.std_mean(vae.encode(to_tensor(clips)).latent_dist.mean.detach(), (0, 2, 3, 4))
    vae.register_to_config(latents_mean=means.tolist(), latents_std=deviations.tolist())
    first = load_or_encode_latents(tmp_path, vae, 64, SINGLE_PROCESS, lambda line: None)
    again = load_or_encode_latents(tmp_path, new_vae(TINY), 64, SINGLE_PROCESS, lambda line: None)
    assert torch.equal(first.means, again.means) and first.scenes == again.scenes
    assert first.means.shape == (64, 16, 5, 8, 8)
    assert first.means.float().std().item() == pytest.approx(1, abs=0.2)
    assert first.weights.float().mean((1, 2, 3, 4)).allclose(torch.ones(64), atol=0.01)
    moving = [i for i, scene in enumerate(first.scenes) if scene.motion == "right"]
    assert moving and (first.weights[moving].amax((1, 2, 3, 4)) > 3 * first.weights[moving].amin((1, 2, 3, 4))).all()


def test_a_prompt_has_the_states_that_the_pipeline_computes(tiny: Path) -> None:
    pipeline = load_pipeline(tiny)
    texts = ["a red star spins", ""]
    expected, _ = pipeline.encode_prompt(texts, do_classifier_free_guidance=False, max_sequence_length=24)
    assert torch.allclose(encode_prompts(pipeline.text_encoder, pipeline.tokenizer, texts, 24), expected, atol=1e-5)


def test_the_folder_is_a_wan_pipeline_that_reproduces_clips(tiny: Path) -> None:
    from diffusers import WanPipeline

    pipeline = WanPipeline.from_pretrained(tiny)
    assert pipeline.config.expand_timesteps
    first, second = (
        pipeline(
            ["a red star moves left", "a ring"],
            width=64,
            height=64,
            num_frames=17,
            num_inference_steps=2,
            generator=torch.Generator().manual_seed(4),
        ).frames
        for _ in range(2)
    )
    assert first.shape == (2, 17, 64, 64, 3)
    assert np.array_equal(first, second)
    assert not np.array_equal(first[0], first[1])


def test_edits_of_a_tiny_pipeline_are_judged(tiny: Path) -> None:
    pipeline = load_pipeline(tiny)
    assert evaluate(pipeline, 2, steps=1).pass_rates["all"]["clips"] == 2
    (animated,) = image_to_video(pipeline, 1, steps=1)
    (recoloured,) = remix(pipeline, 1, steps=2)
    assert animated.before.shape == (64, 64, 3)
    assert animated.after.shape == recoloured.before.shape == recoloured.after.shape == (17, 64, 64, 3)
    assert set(edit_rates([animated])) - set(edit_rates([recoloured])) == {"first frame"}
    assert not recoloured.verdict["all"]


def test_the_contact_sheet_shows_every_clip(tmp_path: Path) -> None:
    clips, scenes = render_dataset(3, seed=1)
    captions = [scene_prompt(scene) for scene in scenes]
    write_contact_sheet(list(clips), captions, [True, True, False], 2, tmp_path / "docs" / "sheet.png")
    with Image.open(tmp_path / "docs" / "sheet.png") as page:
        assert page.size == (680, 200)
        assert (np.asarray(page.convert("RGB")) == (255, 0, 0)).all(-1).any()


def test_steps_of_a_stage_can_be_changed() -> None:
    assert with_steps(SHORT, None, None, 9).transformer == replace(SHORT.transformer, steps=9)
