"""GPT-2 as Hugging Face's folders hold it: the names of its tensors and of its settings, there and here.

Legend: D width, L layers. Products of theirs are x W + b with W (D_in, D_out); ours are x Wᵀ + b.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from zoo.errors import ZooError

__all__ = ["MODEL", "from_config", "is_buffer", "names", "to_config"]

MODEL = "gpt"

_ACTIVATIONS = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu", "relu": "relu"}

# Theirs to ours within a layer, and whether a matrix lies the other way round.
_LAYER = {
    "ln_1.weight": ("norm1.weight", False),
    "ln_1.bias": ("norm1.bias", False),
    "attn.c_attn.weight": ("self_attn.in_proj_weight", True),
    "attn.c_attn.bias": ("self_attn.in_proj_bias", False),
    "attn.c_proj.weight": ("self_attn.out_proj.weight", True),
    "attn.c_proj.bias": ("self_attn.out_proj.bias", False),
    "ln_2.weight": ("norm2.weight", False),
    "ln_2.bias": ("norm2.bias", False),
    "mlp.c_fc.weight": ("linear1.weight", True),
    "mlp.c_fc.bias": ("linear1.bias", False),
    "mlp.c_proj.weight": ("linear2.weight", True),
    "mlp.c_proj.bias": ("linear2.bias", False),
}


def names(num_layers: int, tied: bool) -> dict[str, tuple[str, bool]]:
    """Return the name there → the name here, and whether the matrix lies the other way round."""
    found = {"transformer.wte.weight": ("embedding.weight", False)}
    found["transformer.wpe.weight"] = ("positions.weight", False)
    for number in range(num_layers):
        for theirs, (ours, turned) in _LAYER.items():
            found[f"transformer.h.{number}.{theirs}"] = (f"core.layers.{number}.{ours}", turned)
    found["transformer.ln_f.weight"] = ("core.norm.weight", False)
    found["transformer.ln_f.bias"] = ("core.norm.bias", False)
    if not tied:
        found["lm_head.weight"] = ("head.weight", False)
    return found


def is_buffer(name: str) -> bool:
    """Whether a tensor of theirs is no weight: a causal mask, or the tied table once more."""
    return name.endswith((".attn.bias", ".attn.masked_bias")) or name == "lm_head.weight"


def from_config(config: dict[str, Any]) -> tuple[dict[str, Any], int, int]:
    """Return our hyperparameters, the size of the vocabulary and the context.

    Raises:
        ZooError: for a setting that the model does not have.
    """
    asked = {
        "layer_norm_epsilon": 1e-5, "scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False,
        "add_cross_attention": False,
    }  # fmt: skip
    for key, known in asked.items():
        if config.get(key, known) != known:
            raise ZooError(f"config.json asks for {key}={config[key]}, and gpt has {known}.")
    activation = config.get("activation_function", "gelu_new")
    if activation not in _ACTIVATIONS:
        raise ZooError(f"config.json asks for activation_function={activation}; gpt has {', '.join(_ACTIVATIONS)}.")
    context = config.get("n_positions", 1024)
    hparams = {
        "num_layers": config.get("n_layer", 12),
        "num_heads": config.get("n_head", 12),
        "hidden_size": config.get("n_embd", 768),
        "feedforward_size": config.get("n_inner"),
        "context": context,
        "dropout": config.get("resid_pdrop", 0.1),
        "activation": _ACTIVATIONS[activation],
        "tie_embeddings": config.get("tie_word_embeddings", True),
    }
    return hparams, config.get("vocab_size", 50257), context


def to_config(hparams: Any, vocab_size: int, context: int) -> dict[str, Any]:
    """Return the settings that `transformers` builds the same model from."""
    theirs = {ours: name for name, ours in reversed(_ACTIVATIONS.items())}
    return {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "n_layer": hparams["num_layers"],
        "n_head": hparams["num_heads"],
        "n_embd": hparams["hidden_size"],
        "n_inner": hparams["feedforward_size"],
        "n_positions": context,
        "vocab_size": vocab_size,
        "activation_function": theirs[hparams["activation"]],
        "layer_norm_epsilon": 1e-5,
        **dict.fromkeys(("resid_pdrop", "attn_pdrop", "embd_pdrop"), hparams["dropout"]),
        "tie_word_embeddings": hparams["tie_embeddings"],
    }


def without_prefix(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors under the names of the whole model, where a folder holds those of its body alone."""
    if any(name.startswith("transformer.") for name in tensors):
        return tensors
    return {name if name.startswith("lm_head.") else f"transformer.{name}": value for name, value in tensors.items()}
