"""BERT as Hugging Face's folders hold it: the names of its tensors and of its settings, there and here.

Legend: D width, L layers. They keep the products for queries, keys and values apart; ours are one matrix of 3 D rows.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zoo.errors import ZooError

__all__ = ["MODEL", "from_config", "is_buffer", "names", "parted", "to_config", "without_prefix"]

MODEL = "bert"

_ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "relu": "relu"}

# Theirs to ours, beside the layers and within one; `qkv` stands for three of theirs, one below the other.
_WHOLE = {
    "bert.embeddings.word_embeddings.weight": "embedding.weight",
    "bert.embeddings.position_embeddings.weight": "positions.weight",
    "bert.embeddings.token_type_embeddings.weight": "segments.weight",
    "bert.embeddings.LayerNorm.weight": "norm.weight",
    "bert.embeddings.LayerNorm.bias": "norm.bias",
    "cls.predictions.transform.dense.weight": "transform.weight",
    "cls.predictions.transform.dense.bias": "transform.bias",
    "cls.predictions.transform.LayerNorm.weight": "transform_norm.weight",
    "cls.predictions.transform.LayerNorm.bias": "transform_norm.bias",
    "cls.predictions.bias": "bias",
}
_LAYER = {
    "attention.self.qkv.weight": "self_attn.in_proj_weight",
    "attention.self.qkv.bias": "self_attn.in_proj_bias",
    "attention.output.dense.weight": "self_attn.out_proj.weight",
    "attention.output.dense.bias": "self_attn.out_proj.bias",
    "attention.output.LayerNorm.weight": "norm1.weight",
    "attention.output.LayerNorm.bias": "norm1.bias",
    "intermediate.dense.weight": "linear1.weight",
    "intermediate.dense.bias": "linear1.bias",
    "output.dense.weight": "linear2.weight",
    "output.dense.bias": "linear2.bias",
    "output.LayerNorm.weight": "norm2.weight",
    "output.LayerNorm.bias": "norm2.bias",
}
_PARTS = ("query", "key", "value")


def names(num_layers: int, tied: bool = True) -> dict[str, tuple[str, bool]]:
    """Return the name there → the name here, and whether the matrix lies the other way round: none does."""
    found = {theirs: (ours, False) for theirs, ours in _WHOLE.items()}
    for number in range(num_layers):
        for theirs, ours in _LAYER.items():
            found[f"bert.encoder.layer.{number}.{theirs}"] = (f"core.layers.{number}.{ours}", False)
    return found


def is_buffer(name: str) -> bool:
    """Whether a tensor of theirs is no weight of ours, such as the tied table once more."""
    ours_not = ("position_ids", "cls.predictions.decoder.weight", "cls.predictions.decoder.bias")
    return name.endswith(ours_not) or name.startswith(("bert.pooler.", "cls.seq_relationship."))


def from_config(config: dict[str, Any]) -> tuple[dict[str, Any], int, int]:
    """Return our hyperparameters, the size of the vocabulary and the most tokens of a text.

    Raises:
        ZooError: for a setting that the model does not have.
    """
    asked = {"layer_norm_eps": 1e-12, "type_vocab_size": 2, "position_embedding_type": "absolute", "is_decoder": False}
    for key, known in asked.items():
        if config.get(key, known) != known:
            raise ZooError(f"config.json asks for {key}={config[key]}, and bert has {known}.")
    activation = config.get("hidden_act", "gelu")
    if activation not in _ACTIVATIONS:
        raise ZooError(f"config.json asks for hidden_act={activation}; bert has {', '.join(_ACTIVATIONS)}.")
    longest = config.get("max_position_embeddings", 512)
    hparams = {
        "num_layers": config.get("num_hidden_layers", 12),
        "num_heads": config.get("num_attention_heads", 12),
        "hidden_size": config.get("hidden_size", 768),
        "feedforward_size": config.get("intermediate_size", 3072),
        "max_length": longest,
        "dropout": config.get("hidden_dropout_prob", 0.1),
        "activation": _ACTIVATIONS[activation],
    }
    return hparams, config.get("vocab_size", 30522), longest


def to_config(hparams: Any, vocab_size: int, context: int) -> dict[str, Any]:
    """Return the settings that `transformers` builds the same model from."""
    theirs = {ours: name for name, ours in reversed(_ACTIVATIONS.items())}
    return {
        "model_type": "bert",
        "architectures": ["BertForMaskedLM"],
        "num_hidden_layers": hparams["num_layers"],
        "num_attention_heads": hparams["num_heads"],
        "hidden_size": hparams["hidden_size"],
        "intermediate_size": hparams["feedforward_size"] or 4 * hparams["hidden_size"],
        "max_position_embeddings": context,
        "vocab_size": vocab_size,
        "hidden_act": theirs[hparams["activation"]],
        "layer_norm_eps": 1e-12,
        "type_vocab_size": 2,
        **dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), hparams["dropout"]),
    }


def without_prefix(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors under the names that `names` knows: queries, keys and values joined."""
    found = dict(tensors)
    for name in tensors:
        if ".attention.self.query." not in name:
            continue
        three = [name.replace(".query.", f".{part}.") for part in _PARTS]
        if all(part in tensors for part in three):
            found[name.replace(".query.", ".qkv.")] = torch.cat([found.pop(part) for part in three])
    return found


def parted(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors under their names: queries, keys and values apart again."""
    found: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if ".qkv." in name:
            found |= {
                name.replace(".qkv.", f".{k}."): p.contiguous() for k, p in zip(_PARTS, value.chunk(3), strict=True)
            }
        else:
            found[name] = value
    return found
