"""Make tiny sentence-transformers folders: published architectures with random weights."""

import json
from pathlib import Path
from typing import Any

NETWORK_SIZES = {
    "vocab_size": 300,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
MAX_POSITIONS = 64


def transformer(kind: str) -> Any:
    """Return a network with random weights; `kind` names its architecture."""
    import torch
    import transformers as t

    torch.manual_seed(7)
    more: dict[str, Any] = {"max_position_embeddings": MAX_POSITIONS, "initializer_range": 0.3, "pad_token_id": 0}
    offset = more | {"max_position_embeddings": MAX_POSITIONS + 2, "pad_token_id": 1}
    heads = {"num_key_value_heads": 2, "head_dim": 8}
    networks = {
        "bert": lambda: t.BertModel(t.BertConfig(**NETWORK_SIZES, **more)),
        "xlm-roberta": lambda: t.XLMRobertaModel(t.XLMRobertaConfig(**NETWORK_SIZES, **offset)),
        "mpnet": lambda: t.MPNetModel(t.MPNetConfig(**NETWORK_SIZES, **offset)),
        "modernbert": lambda: t.ModernBertModel(
            t.ModernBertConfig(**NETWORK_SIZES, **more, local_attention=16, global_attn_every_n_layers=2)
        ),
        "qwen3": lambda: t.Qwen3Model(t.Qwen3Config(**NETWORK_SIZES, **heads, **more)),
    }
    return networks[kind]().eval()


def make_folder(
    folder: Path,
    kind: str = "bert",
    pooling: dict[str, Any] | None = None,
    dense: int | None = None,
    normalize: bool = True,
    prompts: dict[str, Any] | None = None,
) -> Path:
    """Write a folder in the layout of sentence-transformers."""
    import torch
    from safetensors.torch import save_file
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    folder.mkdir(parents=True)
    transformer(kind).save_pretrained(folder)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    specials = ["<pad>", "<unk>", "<s>", "</s>"]
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(specials + alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(specials)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    write(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **names})
    write(folder / "sentence_bert_config.json", {"max_seq_length": MAX_POSITIONS, "do_lower_case": False})
    write(folder / "config_sentence_transformers.json", prompts or {})
    kinds = ["Transformer", "Pooling", *(["Dense"] if dense else []), *(["Normalize"] if normalize else [])]
    modules = []
    for index, name in enumerate(kinds):
        path = "" if index == 0 else f"{index}_{name}"
        (folder / path).mkdir(exist_ok=True)
        modules.append({"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{name}"})
    write(folder / "modules.json", modules)
    width = {"word_embedding_dimension": NETWORK_SIZES["hidden_size"]}
    write(folder / "1_Pooling" / "config.json", width | (pooling or {"pooling_mode_mean_tokens": True}))
    if dense:
        input_width = NETWORK_SIZES["hidden_size"] * max(1, sum(bool(on) for on in (pooling or {}).values()))
        config = {"in_features": input_width, "out_features": dense, "bias": True}
        write(folder / "2_Dense" / "config.json", config | {"activation_function": "torch.nn.modules.activation.Tanh"})
        torch.manual_seed(3)
        tensors = {"linear.weight": torch.randn(dense, input_width) / 6, "linear.bias": torch.randn(dense)}
        save_file(tensors, folder / "2_Dense" / "model.safetensors")
    return folder


def write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")
