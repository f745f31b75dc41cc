"""`zoo.fit`: train a model on arrays or on a DataModule, in one line of Python."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Any, Literal, TypeVar

import torch
from torch import Tensor

from zoo.checks import Range, check_type
from zoo.data.array_data import NO_AXES, ArrayData, check_weight
from zoo.data.arrays import column_names, is_ragged, to_tensor, whole_numbers
from zoo.data.base import TensorRows
from zoo.data.foreign import opened
from zoo.data.given_texts import VIEWS, as_texts, column_of_texts
from zoo.data.layout import Layout
from zoo.errors import ZooError, nearest
from zoo.models.base import StreamingModel, ZooModel
from zoo.numerics.devices import has_gpu
from zoo.training.processes import in_world

__all__ = ["as_datamodule", "fit", "fit_in_loop"]

_TYPES: dict[str, Any] = {
    "batch_size": Annotated[int, Range(0)] | None,
    "max_epochs": Annotated[int, Range(1)] | None,
    "validation": Annotated[float, Range(0, 1, open_high=True)],
    "standardize": bool | None,
    "layout": Layout,
    "missing": Literal["auto", "refuse", "mean", "median", "zero", "keep"],
    "text": Literal["auto", "refuse", "onehot", "codes", "tokens", "counts", "binary", "tfidf"],
    "seed": Annotated[int, Range(0, 2**32 - 1)],
    "device": Literal["auto", "cpu", "cuda"],
    "progress": bool,
}

Model = TypeVar("Model", bound=ZooModel)


def fit(
    model: Model,
    data: Any,
    y: Any = None,
    *,
    sample_weight: Any = None,
    batch_size: int | None = None,
    max_epochs: int | None = None,
    validation: float = 0.0,
    standardize: bool | None = None,
    layout: Layout = "auto",
    missing: Literal["auto", "refuse", "mean", "median", "zero", "keep"] = "auto",
    text: Literal["auto", "refuse", "onehot", "codes"] = "auto",
    optimizer: str | None = None,
    optimizer_options: dict[str, Any] | None = None,
    lr: float | None = None,
    l1: float = 0.0,
    l2: float = 0.0,
    seed: int = 0,
    device: str = "auto",
    progress: bool = False,
    **trainer_options: Any,
) -> Model:
    """Fit a model to arrays or to a DataModule, and return it.

    A streaming model on arrays, or on baskets held in Python, is driven in a plain loop, within milliseconds; all else
    goes through Lightning's Trainer.

    Args:
        model: a model of `zoo.create_model`, which is trained in place.
        data: inputs (N, ...) as an array, a tensor or a table (pandas, polars, PyArrow, Hugging Face, a dict of
            columns), or a LightningDataModule. A table may hold text and categories. A model of sequences takes lists
            of different lengths too, and the ids of tokens (N, T). A list of texts, or a table of no other column, is
            read as those of `data=csv data.text=COLUMN`. Torch's `Dataset` and `DataLoader` give inputs or pairs of
            inputs and targets; they are read once and held, so that what they draw at random is drawn once.
        layout: what the axes of an array are: `NF`, `NTF` (steps), `NHW` (grey images), `NCHW`, `NHWC`; `auto` is as
            they look, which is said in a line where it may be mistaken.
        y: targets (N,): text and integers are classes, floats are values; or the name of the table's column of them.
        sample_weight: weights (N,).
        batch_size: rows a batch; by default 64 for gradient models (or that of the `DataLoader`) and all rows for
            streaming ones.
        max_epochs: passes over the data; by default 20 for gradient models, as many as are needed for streaming ones.
        validation: share of the rows kept aside for validation.
        standardize: whether each feature of rows (N, F) is scaled to mean 0 and standard deviation 1 of the training
            rows, as the command line does; the scaling becomes part of the model, and `predict` takes rows as they
            are. None: for models that take optimizer steps, which need it, and not for models that are solved, whose
            coefficients, centres and distances stay in the user's units. Target values are scaled with the features,
            and predicted in their own units.
        missing: what becomes of missing values in rows (N, F): `refuse`, `mean`, `median`, `zero` (of the training
            rows, for new rows too), or `keep` for models that learn from them; `auto` keeps them for such models, which
            are those of trees, and else refuses.
        text: what becomes of text columns and categories: `refuse`, `onehot`, `codes`; `auto` is onehot up to 20
            different values. Of a list of texts what each becomes: `tokens`, or a bag of `counts`, `binary` or
            `tfidf`; `auto` is tokens for models that read them, and else counts.
        optimizer: a name such as `adam` or `sgd`, by default the model's own or Adam.
        optimizer_options: its parameters.
        lr: learning rate, short for `optimizer_options={"lr": ...}`.
        l1: λ₁ of the penalty λ₁ Σ|w| beside the mean loss.
        l2: λ₂ of the penalty λ₂ Σ w².
        seed: seed of the initial parameters and of the order of rows.
        device: `auto`, `cpu` or `cuda`.
        progress: show a progress bar.
        **trainer_options: `early_stopping`, a mapping of `patience` and `min_delta`, which ends with the weights of the
            best validation; `averaging`, as on the command line; anything else that Lightning's Trainer takes.

    Raises:
        ZooError: if the data do not suit the model, in one line.

    Example:
        >>> import torch, zoo
        >>> x = torch.tensor([[0.0], [0.1], [5.0], [5.1]])
        >>> model = zoo.fit(zoo.create_model("kmeans", num_clusters=2), x)
        >>> labels = model.predict(x)
        >>> bool(labels[0] == labels[1] != labels[2] == labels[3])
        True
    """
    if not isinstance(model, ZooModel):
        named = f"zoo.create_model('{model}')" if isinstance(model, str) else "a model of zoo.create_model"
        raise ZooError(f"zoo.fit takes a model first, not {type(model).__name__}: pass {named}.")
    data, y, usual_size = opened(data, y, seed=seed if isinstance(seed, int) else 0)
    _check_arguments(
        model, data, y, optimizer, optimizer_options, lr, trainer_options, batch_size=batch_size, max_epochs=max_epochs,
        validation=validation, standardize=standardize, layout=layout, missing=missing, text=text, seed=seed,
        device=device, progress=progress,
    )  # fmt: skip
    options = {**(optimizer_options or {}), **({} if lr is None else {"lr": lr})}
    if optimizer is None and not options:  # the model's own choice, with the penalties of this call
        optimizer, options = model.recipe.optimizer, model.recipe.optimizer_options
    recipe = model.recipe  # with the schedule that belongs to it
    wanted: dict[str, Any] = {"optimizer": optimizer or recipe.optimizer, "optimizer_options": options}
    wanted |= {"l1": l1, "l2": l2, "l1_steps": "gradient"}
    if any(getattr(recipe, name) != value for name, value in wanted.items()):  # a new one checks all that it is given
        recipe = replace(recipe, **wanted)
    model.train_by(recipe)
    if batch_size is None and not model.streaming:
        batch_size = usual_size
    coding = {"missing": missing, "text": text}
    datamodule = as_datamodule(
        model, data, y, sample_weight, batch_size, validation, standardize, coding, seed, layout=layout
    )
    with _streams_of(seed):
        if (
            isinstance(model, StreamingModel)
            and model.streaming
            and not (trainer_options or progress or _comes_by_loaders(data))
        ):
            return fit_in_loop(model, datamodule, max_epochs, device)
        return _fit_trainer(model, datamodule, max_epochs, device, progress, trainer_options)


@contextlib.contextmanager
def _streams_of(seed: int) -> Iterator[None]:
    """Let torch draw from streams that begin at a seed; the caller's own go on as if nothing had been drawn."""
    if has_gpu():
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(seed)
            yield
        return
    # Without the count of GPUs, and the note of where one would have been seeded, which cost a millisecond.
    before = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(before)


def _check_arguments(
    model: ZooModel,
    data: Any,
    y: Any,
    optimizer: str | None,
    optimizer_options: dict[str, Any] | None,
    lr: float | None,
    trainer_options: dict[str, Any],
    **given: Any,
) -> None:
    """Raise one line for an argument that is unknown, missing, out of range, or of no use to the model."""
    defaults = _defaults()
    for name, annotation in _TYPES.items():
        if given[name] is not defaults[name]:
            check_type(name, given[name], annotation)
    if not isinstance(optimizer, str | None):
        raise ZooError(f"optimizer is a name, such as 'adam' or 'sgd', not {optimizer!r}.")
    if given["device"] == "cuda" and not has_gpu():
        raise ZooError("device='cuda' was asked for, and torch finds no GPU: pass device='cpu' or 'auto'.")
    if trainer_options:
        from lightning.pytorch import Trainer

        from zoo.training.trainer import make_trainer

        known = {*inspect.signature(fit).parameters, *inspect.signature(Trainer).parameters}
        known |= set(inspect.signature(make_trainer).parameters)
        known -= {"trainer_options", "options"}
        for name in trainer_options:
            if name not in known:
                raise ZooError(f"zoo.fit has no argument '{name}'.{nearest(name, known)}")
    if "optimizer" not in model.heeds:
        for name, value in (("optimizer", optimizer), ("optimizer_options", optimizer_options), ("lr", lr)):
            if value is not None:
                raise ZooError(f"{name} does nothing for {model.entry.name}, which takes no steps: leave it out.")
    supervised = all(target in ("class", "value") for _, target in model.entry.accepts)
    if y is None and supervised and not hasattr(data, "train_dataloader"):
        named = ", or y='COLUMN'" if column_names(data) is not None else ""
        raise ZooError(f"{model.entry.name} learns from targets: pass y, as in zoo.fit(model, X, y){named}.")


@functools.cache
def _defaults() -> dict[str, Any]:
    """The arguments of `fit` with their defaults."""
    return {name: parameter.default for name, parameter in inspect.signature(fit).parameters.items()}


def _fit_trainer(
    model: Any, datamodule: Any, max_epochs: int | None, device: str, progress: bool, options: dict[str, Any]
) -> Any:
    from zoo.training.trainer import make_trainer

    accelerator, options = "gpu" if device == "cuda" else device, in_world(options)
    if (stopping := options.get("early_stopping")) is not None:
        _check_stopping(stopping, datamodule)
        if hasattr(datamodule, "spec"):
            model.build(datamodule.spec)  # the task says which value is watched
    trainer = make_trainer(model, max_epochs=max_epochs, accelerator=accelerator, progress=progress, **options)
    trainer.fit(model, datamodule=datamodule)
    return model.eval()


def _check_stopping(options: Any, datamodule: Any) -> None:
    """Raise one line for an early stop that is told by nothing, or by rows that are not there."""
    known = ("patience", "min_delta")
    if not isinstance(options, dict) or not options or not set(options) <= set(known):
        raise ZooError(f"early_stopping must be a mapping of {' and '.join(known)}, as in {{'patience': 5}}.")
    check_type("early_stopping.patience", options.get("patience", 3), Annotated[int, Range(0)])
    check_type("early_stopping.min_delta", options.get("min_delta", 0.0), Annotated[float, Range(0)])
    if hasattr(datamodule, "has") and not datamodule.has("val"):
        raise ZooError("early_stopping watches validation rows, and there are none: pass validation=0.2.")


def _comes_by_loaders(data: Any) -> bool:
    """Whether the data are a DataModule, but for one that was made of what the user holds in Python."""
    return hasattr(data, "train_dataloader") and not getattr(data, "of_python", False)


def as_datamodule(
    model: ZooModel,
    data: Any,
    y: Any = None,
    weight: Any = None,
    batch_size: int | None = None,
    validation: float = 0.0,
    standardize: bool | None = None,
    coding: dict[str, Any] | None = None,
    seed: int = 0,
    parts: dict[str, Tensor] | None = None,
    layout: Layout = "auto",
) -> Any:
    """Return the user's rows as the DataModule that a model is fitted to; arguments are those of `fit`.

    Args:
        model: the model.
        data: its rows.
        y: targets.
        weight: of each row.
        batch_size: rows a batch.
        validation: share of the rows kept aside.
        standardize: whether features are scaled.
        coding: `missing` and `text`.
        seed: of the order of rows.
        parts: row numbers of each split, in place of `validation`.
        layout: what the axes of an array are.
    """
    coding = coding or {"missing": "auto", "text": "auto"}
    if hasattr(data, "train_dataloader"):
        if y is not None or weight is not None:
            raise ZooError(
                "A DataModule brings its own targets and weights: pass y and sample_weight with arrays only."
            )
        if standardize is not None:
            raise ZooError("A DataModule scales its own rows: pass standardize with arrays only.")
        if layout != "auto":
            raise ZooError("A DataModule lays out its own rows: pass layout with arrays only.")
        if set(coding.values()) != {"auto"}:
            raise ZooError("A DataModule codes its own columns: pass missing and text with arrays and tables only.")
        data.takes_missing, data.kinds = model.takes_missing, model.entry.kinds
        return data
    texts, column = as_texts(data), "text"
    if texts is None and (named := column_of_texts(data, coding["text"])) is not None:
        column, texts = named
    if batch_size is None:
        batch_size = 64 if not model.streaming else 0 if texts is None else 1024  # bags of all texts would be large
    if texts is not None:
        from zoo.data.text_arrays import TextArrays

        if layout != "auto":
            raise ZooError(NO_AXES)
        view = _view(model, y, coding["text"])
        if weight is not None:
            weight = check_weight(to_tensor(weight, "weight"), len(texts))
        found = TextArrays(
            texts, y, weight, view=view, column=column, val_fraction=validation, batch_size=batch_size, seed=seed
        )
        if parts is not None:
            found.divide(parts)
        return found
    if coding["text"] in VIEWS:
        raise ZooError(
            f"text='{coding['text']}' is for a list of texts, or a table of that column alone: pass auto, refuse, "
            "onehot or codes."
        )
    # Rows of integers are tokens to a model that reads tokens and no tables, and so are rows of different lengths.
    kinds = model.entry.kinds
    reads = "tokens" in kinds and axes(data) == 2 and ("tabular" not in kinds or is_ragged(data))
    kind = "tokens" if reads else None
    options: dict[str, Any] = {"val_fraction": validation, "batch_size": batch_size, "seed": seed}
    if standardize is None:
        standardize = not model.streaming
    if all(target == "class" for _, target in model.entry.accepts):
        y = whole_numbers(y)
    if kind == "tokens" or "tabular" not in kinds:
        coding = {}
    return ArrayData(
        data, y, weight, kind=kind, standardize=standardize, takes_missing=model.takes_missing, kinds=kinds,
        parts=parts, layout=layout, **coding, **options,
    )  # fmt: skip


def _view(model: ZooModel, y: Any, text: str) -> str:
    """Return what the texts of a list become."""
    if text not in ("auto", *VIEWS):
        raise ZooError(f"text='{text}' is for columns of tables: of a list of texts pass auto, {', '.join(VIEWS)}.")
    if text != "auto":
        return text
    if y is None and not model.entry.unsupervised:
        raise ZooError(f"{model.entry.name} learns from targets: pass y (a text to go on with is data=text_file).")
    return "tokens" if any(model.entry.fits("tokens", target) for target in ("class", "value")) else "counts"


def axes(data: Any) -> int:
    """Return the number of axes of an array, or of lists within lists."""
    shape = getattr(data, "shape", None)
    if shape is not None:
        return len(shape)
    return 1 + axes(data[0]) if isinstance(data, list | tuple) and len(data) else 0


def fit_in_loop(model: Any, datamodule: Any, max_passes: int | None, device: str) -> Any:
    """Fit a streaming model to the training rows of a DataModule of the zoo, without a trainer; return it.

    Args:
        model: the model.
        datamodule: the rows.
        max_passes: over them; None for as many as the model needs.
        device: `auto`, `cpu` or `cuda`.
    """
    model.build(datamodule.spec)
    model.preprocessing = datamodule.preprocessing
    if device == "auto":
        device = "cuda" if has_gpu() else "cpu"
    if torch.device(device) != model.device:  # which takes a while where there is nothing to move
        model.to(device)
    rows = datamodule.rows("train")
    at_once = datamodule.of_python and len(rows) <= datamodule.batch_size  # which needs no loader
    if not datamodule.batch_size or at_once:
        whole = [model.as_batch(rows.whole())]
        model.fit_batches(lambda: whole, max_passes)
    elif isinstance(rows, TensorRows) and not datamodule.num_workers:  # which lie in order: none are copied
        size = datamodule.batch_size
        model.fit_batches(lambda: (rows[slice(i, i + size)] for i in range(0, len(rows), size)), max_passes)
    else:
        model.fit_batches(lambda: datamodule.loader("train"), max_passes)
    if max_passes is not None:
        from zoo.training.convergence import warn_unless_done

        warn_unless_done(model, max_passes, "max_epochs")
    return model.eval()
