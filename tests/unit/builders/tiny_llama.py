"""Make a tiny Llama with random weights, which is exported and verified like any other."""

import json
from pathlib import Path

TEMPLATE = "{% for m in messages %}<|{{ m['role'] }}|>\r\n\"{{ m.content }}\" \\ żółć 漢字 😀\n\t{% endfor %}<|answer|>"
"""Has characters that careless writers break: quotes, newlines, a backslash, a tab, letters of three alphabets."""


def make_checkpoint(folder: Path, seed: int) -> Path:
    """Write a Llama of random weights and a byte-level tokenizer in Hugging Face's layout."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM

    specials = ["<s>", "</s>", "<|end|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(specials + alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(specials)

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.3,  # random logits that differ from one another, so that rounding decides no choice
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "bos_token": {"__type": "AddedToken", "content": "<s>", "special": True},
                "eos_token": "<|end|>",
                "chat_template": TEMPLATE,
            }
        )
    )
    return folder
