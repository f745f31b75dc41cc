"""Models that begin with trained weights, by the name of the weights: to predict, or to be trained further."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.checks import check_type
from zoo.errors import ZooError, nearest
from zoo.registry import create_model as create_new
from zoo.registry import model_entry
from zoo.training.shipped import index

if TYPE_CHECKING:
    from zoo.data.spec import DataSpec
    from zoo.models.base import ZooModel

__all__ = ["begin_with", "create_model", "find_weights", "trained_hyperparameters"]

log = logging.getLogger("zoo")


def create_model(
    name: str, spec: DataSpec | None = None, *, pretrained: str | Path | None = None, **hparams: Any
) -> ZooModel:
    """Create a registered model by name, with weights at random or with trained ones.

    Args:
        name: a name of `list_models()`.
        spec: the shape of the data, if the parameters are wanted at once; `fit` supplies it otherwise.
        pretrained: trained weights: a name of `list_pretrained()`, a file or folder of `save_pretrained`, a run,
            `https://…#sha256=…`, or a name on Hugging Face's hub. With a `spec` of other data, what does not fit begins
            anew. (For `gpt`, `bert` and `transformer_encoder` a run is what they begin with once they meet data.)
        **hparams: the model's own hyperparameters; with `pretrained` those that are to differ from the trained ones.

    Raises:
        ZooError: for a hyperparameter that is unknown, with the valid ones, out of range, or of no use beside the
            others; for weights that are not there, were altered, or are of another model.

    Example:
        >>> import zoo
        >>> zoo.create_model("kmeans", num_clusters=10).hparams.num_clusters
        10
        >>> zoo.create_model("cnn", pretrained="digits").spec.class_names[:3]
        ('0', '1', '2')
    """
    if pretrained is None:
        return create_new(name, spec, **hparams)
    from zoo.data.spec import DataSpec

    check_type("spec", spec, DataSpec | None)
    if not isinstance(pretrained, str | os.PathLike):
        raise ZooError(f"pretrained must be a name of zoo.list_pretrained(), a file or a folder, not {pretrained!r}.")
    pretrained = os.fspath(pretrained)
    own = "pretrained" in model_entry(name).hyperparameters
    if own and not is_named(name, pretrained) and _holds_checkpoint(pretrained):
        return create_new(name, spec, pretrained=pretrained, **hparams)
    source = find_weights(name, pretrained)
    known: Any = source.spec
    if not hparams and (spec is None or known.matches(spec)):
        return source
    model = create_new(name, **with_hyperparameters(source, hparams))
    model.build(spec or known)
    begin_with(model, source, pretrained)
    if known.matches(model.spec):
        model.preprocessing = source.preprocessing
    return model.eval()


def is_named(model: str, name: str) -> bool:
    """Whether weights of that name travel with the package."""
    return f"{model}/{name}" in index() or (name in index() and name.startswith(f"{model}/"))


def _holds_checkpoint(path: str) -> bool:
    own = Path(path).is_file() and not path.endswith(".safetensors")
    return own or Path(path, "checkpoints").is_dir()


def find_weights(name: str, source: str | Path) -> ZooModel:
    """Return a trained model.

    Args:
        name: of the model.
        source: as `pretrained` of `create_model`.

    Raises:
        ZooError: if there are no such weights, or they were altered, or are of another model.
    """
    from zoo.training.pretrained import load_pretrained

    text = str(source)
    known = [key.partition("/")[2] for key in index() if key.startswith(f"{name}/")]
    if not is_named(name, text) and "/" not in text.strip("/") and not Path(text).exists():
        there = f" Of {name} there are: {', '.join(sorted(known))}." if known else f" Of {name} there are none."
        raise ZooError(
            f"There are no weights '{text}'.{nearest(text, known)}{there} A file or folder of your own, a run, an "
            "address with its digest, or OWNER/NAME on Hugging Face's hub may stand in its place."
        )
    model = load_pretrained(f"{name}/{text}" if text in known else text)
    if model.entry.name != name:
        raise ZooError(f"pretrained={source} holds weights of {model.entry.name}, not of {name}.")
    return model


# -- going on from them ------------------------------------------------------------------------------------------------


def trained_hyperparameters(source: ZooModel) -> dict[str, Any]:
    """Return the hyperparameters of a trained model, so that another of them has tensors of the same shapes."""
    from zoo.training.checkpoint import checkpoint_of

    trained = dict(checkpoint_of(source)["hyper_parameters"])
    length = getattr(source, "length", None)  # how many positions there are otherwise follows from the data
    return trained | ({} if length is None else {length: source.context})


def with_hyperparameters(source: ZooModel, given: dict[str, Any]) -> dict[str, Any]:
    """Return the hyperparameters of a model that begins with trained weights: theirs, but for those that are given."""
    defaults = source.entry.hyperparameters
    trained = trained_hyperparameters(source)
    return {key: value for key, value in trained.items() if key in defaults and value != defaults[key]} | given


def begin_with(model: ZooModel, source: ZooModel, name: str | Path) -> None:
    """Give a built model the weights of a trained one; what is of another shape begins anew, and is named in a note.

    Raises:
        ZooError: for a model that is solved and takes no steps, or where hardly anything fits.
    """
    import torch

    from zoo.data.names import listed

    if model.streaming:
        raise ZooError(
            f"{model.entry.name} is solved anew in each fit and goes on from nothing: leave pretrained={name} out, or "
            "take a solver that goes by steps."
        )
    if source.spec is not None and model.spec is not None and source.spec.kind == "tokens":
        _check_vocabulary(model.spec, source.spec, name)
    own, trained = model.state_dict(), source.state_dict()
    fitting = {key: trained[key] for key, value in own.items() if key in trained and trained[key].shape == value.shape}
    anew = [key for key, value in own.items() if key not in fitting and not key.startswith("objective.")]
    if 2 * sum(value.numel() for value in fitting.values()) < sum(value.numel() for value in own.values()):
        raise ZooError(
            f"pretrained={name} does not fit: {anew[0]} and others are of another shape. Leave out what you changed of "
            "the model, or take data of the shape that it was trained on."
        )
    with torch.no_grad():
        for key, value in fitting.items():
            own[key].copy_(value)
    if anew:
        log.info("pretrained=%s: %d of %d tensors; %s begin anew.", name, len(fitting), len(own), ", ".join(anew))
    if unused := [key for key in trained if key not in own and not key.startswith("objective.")]:
        log.info("pretrained=%s: %d of its tensors have no place: %s.", name, len(unused), listed(unused))


def _check_vocabulary(spec: DataSpec, known: DataSpec, name: str | Path) -> None:
    if spec.vocab_size != known.vocab_size or spec.tokenizer != known.tokenizer:
        raise ZooError(f"pretrained={name} reads another vocabulary than these data.")
