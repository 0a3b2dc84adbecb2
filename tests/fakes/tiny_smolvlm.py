"""A real SmolVLM, too small to see anything: random weights, but the family's own tokens, template and preprocessor."""

import json
from pathlib import Path
from typing import Any

# The one that transformers puts in for this family where a checkpoint's own does not know videos.
TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}"
    "{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% elif line['type'] == 'video' %}{{ '<video>' }}{% endif %}"
    "{% endfor %}<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
SPECIALS = [
    "<global-img>",
    *(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)),
    "<fake_token_around_image>",
    "<image>",
    *(f"<|reserved_special_token_{number}|>" for number in range(88)),
    "<end_of_utterance>",
]
TILE, LONGEST_EDGE, PATCH, SHUFFLE = 64, 256, 16, 2
TOKENS_PER_TILE = (TILE // PATCH // SHUFFLE) ** 2
PREPROCESSOR = {
    "do_convert_rgb": True,
    "do_image_splitting": True,
    "do_normalize": True,
    "do_pad": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_processor_type": "SmolVLMImageProcessor",
    "image_std": [0.5, 0.5, 0.5],
    "max_image_size": {"longest_edge": TILE},
    "resample": 1,
    "rescale_factor": 1 / 255,
    "size": {"longest_edge": LONGEST_EDGE},
}


def make_checkpoint(folder: Path, tokenizer: Any, *, family: str = "smolvlm", seed: int = 1) -> Path:
    """Write a checkpoint in Hugging Face's layout; the marks of pictures are added to a copy of `tokenizer`.

    `family` is `smolvlm` or `idefics3`.
    """
    import torch
    from tokenizers import AddedToken, Tokenizer
    from transformers import AutoConfig, AutoModelForImageTextToText

    tokenizer = Tokenizer.from_str(tokenizer.to_str())
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIALS])
    end = tokenizer.token_to_id("<end_of_utterance>")
    config = AutoConfig.for_model(
        family,
        image_token_id=tokenizer.token_to_id("<image>"),
        scale_factor=SHUFFLE,
        tie_word_embeddings=False,
        text_config={
            "model_type": "llama",
            "vocab_size": tokenizer.get_vocab_size(),
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 1024,
            "initializer_range": 0.3,  # random logits that differ from one another, so that rounding decides no choice
            "bos_token_id": 1,
            "eos_token_id": end,
            "pad_token_id": 2,
        },
        vision_config={
            "hidden_size": 48,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": TILE,
            "patch_size": PATCH,
            "initializer_range": 0.3,
        },
    )
    torch.manual_seed(seed)
    AutoModelForImageTextToText.from_config(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<end_of_utterance>"})
    )
    return folder


def expansion(rows: int = 0, columns: int = 0) -> str:
    """What transformers' own processor puts into a prompt for a picture of so many tiles."""
    from transformers.models.smolvlm.processing_smolvlm import get_image_prompt_string

    return str(
        get_image_prompt_string(rows, columns, TOKENS_PER_TILE, "<fake_token_around_image>", "<image>", "<global-img>")
    )
