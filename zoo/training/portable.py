r"""One module for all that a fitted model does: raw rows go in as tensors, answers come out, and torch is all it needs.

```math
\text{rows} \;\xrightarrow{\text{fill in, code, scale}}\; \text{prepared} \;\xrightarrow{\text{model}}\;
\text{prediction, probability, …}
```

It is what is exported, so that another program needs neither the zoo nor what training learnt of the data. Text is no
tensor: a column of text goes in as the number of its category, and a text as its tokens; the names of the categories,
the tokenizer and what the classes are called travel beside the module as `about`.

Legend: B rows, T steps, R columns of the user's table, F features that the model takes of them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from zoo.checks import check_type
from zoo.data.preprocessing import Preprocessing
from zoo.data.spec import Batch, DataSpec
from zoo.errors import ZooError
from zoo.models.base import ZooModel
from zoo.training.checkpoint import check_learnt, checkpoint_of, model_of

__all__ = ["Input", "Portable", "Preparation"]

_AS_THEY_ARE = ("tokens", "pairs", "transactions")  # kinds of data that come prepared
_NOTHING = -1  # what stands for a class, a position or a bit of a row that has no answer


class Input(NamedTuple):
    """The tensor that goes in.

    Attributes:
        name: `x` for numbers, `tokens` for tokens, `source` for those of what is to be translated.
        dtype: its type.
        shape: sizes, and names of those that may be any: `rows`, and `steps` of sequences.
    """

    name: str
    dtype: torch.dtype
    shape: tuple[int | str, ...]

    @classmethod
    def of(cls, spec: DataSpec, preprocessing: Preprocessing | None) -> Input:
        """Return what a model that was built for `spec` takes of the user's rows."""
        if spec.kind in ("tokens", "pairs"):
            return cls("tokens" if spec.kind == "tokens" else "source", torch.int64, ("rows", "steps"))
        if spec.kind == "transactions":
            return cls("x", torch.float32, ("rows", spec.vocab_size or 0))
        encoder = None if preprocessing is None else preprocessing.encoder
        if encoder is not None:
            return cls("x", torch.float64, ("rows", len(encoder.features)))
        sizes = tuple("steps" if size is None else size for size in spec.example_shape)
        return cls("x", spec.torch_dtype, ("rows", *sizes))


class Preparation(nn.Module):
    """What becomes of raw numbers before a model sees them: missing ones are filled in, categories coded, all scaled.

    Args:
        preprocessing: what was learnt of the training rows; None leaves rows as they are.

    Example:
        >>> from zoo.data.scaling import Standardize
        >>> Preparation(Preprocessing(scaling=Standardize(torch.tensor(10.0), torch.tensor(2.0))))(torch.tensor([14.0]))
        tensor([2.])
    """

    source_column: Tensor
    category_number: Tensor
    filled_in: Tensor
    shift: Tensor
    scale: Tensor | None

    def __init__(self, preprocessing: Preprocessing | None) -> None:
        super().__init__()
        encoder = None if preprocessing is None else preprocessing.encoder
        scaling = None if preprocessing is None else preprocessing.scaling
        self.columns = [] if encoder is None else encoder.features
        self.refuses = encoder is not None and encoder.options.missing in ("refuse", "drop")
        if encoder is not None:
            refused = self.refuses  # a missing number is then no number in the answer
            source, category, fill = [], [], []
            for place, column in enumerate(self.columns):
                onehot, text = column.coding == "onehot", column.kind == "text"
                source += [place] * column.width
                category += list(range(column.width)) if onehot else [-1]
                unknown = -1.0 if column.fill == 0 else column.fill
                fill += [unknown if text else torch.nan if refused else column.fill] * column.width
            self.register_buffer("source_column", torch.tensor(source, dtype=torch.int64))  # (F,)
            self.register_buffer("category_number", torch.tensor(category, dtype=torch.float64))
            self.register_buffer("filled_in", torch.tensor(fill, dtype=torch.float64))
        for name, value in (("shift", "mean"), ("scale", "std")):
            self.register_buffer(name, None if scaling is None else getattr(scaling, value).clone())

    def forward(self, x: Tensor) -> Tensor:
        """Return prepared rows (B, F) or (B, *shape) of raw ones, (B, R) or (B, *shape)."""
        if self.columns:
            value = x[:, self.source_column]  # (B, F)
            coded = (value == self.category_number).to(x.dtype)
            x = torch.where(self.category_number >= 0, coded, torch.where(value.isnan(), self.filled_in, value))
        return x if self.scale is None else (x - self.shift) / self.scale

    def undone(self, prepared: Tensor) -> Tensor:
        """Return raw rows that become the prepared ones, (B, F) or (B, *shape)."""
        x = prepared if self.scale is None else prepared.to(self.scale.dtype) * self.scale + self.shift
        if not self.columns:
            return x
        parts = []
        for column, features in zip(self.columns, x.split([column.width for column in self.columns], 1), strict=True):
            if column.coding == "onehot":
                there, place = features.max(1) if column.width else (features.sum(1), features.sum(1))
                parts.append(torch.where(there > 0.5, place.to(x.dtype), torch.nan))
            elif column.kind == "text":
                place = features[:, 0].round().clamp(max=max(0, len(column.categories or ()) - 1))
                parts.append(torch.where(features[:, 0] < 0, torch.nan, place))
            else:
                parts.append(features[:, 0])
        return torch.stack(parts, 1)


class Portable(nn.Module):
    """A fitted model with its preprocessing, on tensors alone: `forward` takes raw rows and returns what is predicted.

    Args:
        model: a fitted model; it is copied, and what answers do not need is left behind.

    Raises:
        ZooError: for a model that has not been fitted, that predicts nothing, or whose answers no trace holds.

    Example:
        >>> import zoo
        >>> model = zoo.fit(zoo.create_model("linear_regression", solver="exact"), [[0.0], [1.0]], [1.0, 3.0])
        >>> Portable(model)(torch.tensor([[2.0]]))[0].round(decimals=6)
        tensor([5.], dtype=torch.float64)
    """

    def __init__(self, model: ZooModel) -> None:
        super().__init__()
        check_type("model", model, ZooModel)
        check_learnt(model)
        assert model.spec is not None
        if type(model).predict_batch is ZooModel.predict_batch:
            raise ZooError(f"{model.entry.name} predicts nothing for new rows: there is nothing to export.")
        if model.hparams.get("lora_rank") is not None:
            model = model.merged()
        spec: Any = model.spec
        self.spec: DataSpec = spec
        self.preprocessing = model.preprocessing
        self.input = Input.of(spec, model.preprocessing)
        self.preparation = Preparation(model.preprocessing)
        self.refuses = self.preparation.refuses if self.preparation.columns else self._refuses_arrays()
        self.model = model_of(checkpoint_of(model), model.entry.name)
        self.model.before_trace()
        self.requires_grad_(False).eval()
        with torch.inference_mode():
            self.outputs = tuple(self._columns(self.examples(2)))

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Return a tensor for each of `outputs`, first the prediction: the place of a class among the labels, a value.

        Args:
            inputs: of the type and shape that `input` says.
        """
        return tuple(self._columns(inputs).values())

    def _columns(self, inputs: Tensor) -> dict[str, Tensor]:
        model: Any = self.model
        prepared = inputs if self.spec.kind in _AS_THEY_ARE else self.preparation(inputs)
        columns = model.predict_batch(model.as_batch(self._batch(prepared)))
        return self._without_refused(columns, prepared) if self.refuses else columns

    def _without_refused(self, columns: dict[str, Tensor], prepared: Tensor) -> dict[str, Tensor]:
        """Return answers with NaN, or −1, for rows that lack a number: `predict` refuses them, and a tree would not."""
        refused = prepared.flatten(1).isnan().any(1)  # (B,)
        return {
            name: said.masked_fill(
                refused.view(-1, *[1] * (said.ndim - 1)), torch.nan if said.is_floating_point() else _NOTHING
            )
            for name, said in columns.items()
        }

    def _batch(self, inputs: Tensor) -> Batch:
        return Batch(**{self.input.name: inputs})

    def _refuses_arrays(self) -> bool:
        numbers = self.spec.kind not in _AS_THEY_ARE and not self.spec.sparse
        return numbers and self.preprocessing is not None and not self.preprocessing.missing

    # -- rows to try it on ---------------------------------------------------------------------------------------

    def examples(self, rows: int, steps: int | None = None, prepared: Batch | None = None) -> Tensor:
        """Return raw rows as the module takes them.

        Args:
            rows: how many.
            steps: of sequences; as many as the training data had by default.
            prepared: a batch of a DataModule to take them from; by default they are drawn at random.
        """
        longest = max(2, self.spec.shape[0] if self.spec.shape else 2)
        named = {"rows": rows, "steps": steps or longest}
        shape = [named[size] if isinstance(size, str) else size for size in self.input.shape]
        generator = torch.Generator().manual_seed(0)
        if prepared is not None and prepared.items is None:
            found = prepared.rows(torch.arange(rows) % prepared.size).inputs
            found = found.to_dense() if found.layout == torch.sparse_csr else found
            if "steps" in self.input.shape:
                found = found[:, torch.arange(shape[1]) % found.shape[1]]
            return self._raw(found)
        if self.spec.kind in ("tokens", "pairs"):
            return torch.randint(self.spec.vocab_size or 1, shape, generator=generator)
        if self.spec.kind == "transactions":
            return (torch.rand(shape, generator=generator) < 0.3).float()
        wanted = (rows, self.spec.num_features) if self.preparation.columns else tuple(shape)
        raw = self._raw(torch.randn(wanted, generator=generator, dtype=self.spec.torch_dtype))
        return raw.nan_to_num(0.0) if self.preparation.refuses else raw  # the first category where none was drawn

    def _raw(self, prepared: Tensor) -> Tensor:
        raw = prepared if self.spec.kind in _AS_THEY_ARE else self.preparation.undone(prepared)
        return raw.to(self.input.dtype)

    def rows(self, inputs: Tensor) -> Any:
        """Return the rows that such tensors stand for, as `predict` takes them: text for the number of a category."""
        text = self.preprocessing is not None and self.preprocessing.text is not None
        if text or self.spec.kind == "pairs":
            return self._batch(inputs)  # texts that have these tokens need not exist
        columns = self.preparation.columns
        if not columns:
            return inputs
        import pyarrow as pa

        table: dict[str, Any] = {}
        for column, values in zip(columns, inputs.T.tolist(), strict=True):
            if column.kind == "text":
                names = column.categories or []
                table[column.name] = pa.array([None if v != v else names[int(v)] for v in values], pa.string())
            else:
                table[column.name] = pa.array(values, pa.float64())
        return pa.table(table)

    def tensor(self, x: Any) -> Tensor:
        """Return the user's rows, as `predict` takes them, as the tensor that goes in.

        Args:
            x: a table, an array, a list of texts of one length, or a list of baskets.

        Raises:
            ZooError: for rows that the model was not made for, or texts of different lengths.
        """
        from zoo.data.preprocessing import as_table

        if self.preparation.columns and not isinstance(x, Tensor):
            assert self.preprocessing is not None
            assert self.preprocessing.encoder is not None
            return self.preprocessing.encoder.numbers(as_table(x), "X")
        model: Any = self.model
        batch = model.prepare(x) if self.spec.kind in ("tokens", "pairs") else Preprocessing()(x, self.spec)
        if batch.mask is not None or batch.source_mask is not None:
            raise ZooError("Texts and sequences of different lengths go in one length at a time: pass them apart.")
        return (model.dense(batch) if self.spec.kind == "transactions" else batch.inputs).to(self.input.dtype)

    # -- what travels beside it ----------------------------------------------------------------------------------

    def about(self) -> dict[str, Any]:
        """Return what a program that has the file alone needs to know, as plain values."""
        import zoo

        spec, preprocessing = self.spec, self.preprocessing
        names = [column.name for column in self.preparation.columns] or list(spec.feature_names or ())
        categories = {c.name: list(c.categories or ()) for c in self.preparation.columns if c.kind == "text"}
        labels = None if spec.target != "class" or preprocessing is None else preprocessing.labels
        found = {
            "format": 1,
            "zoo": zoo.__version__,
            "model": self.model.entry.name,
            "kind": spec.kind,
            "target": None if self.model.entry.unsupervised else spec.target,
            "input": {
                "name": self.input.name,
                "dtype": str(self.input.dtype).removeprefix("torch."),
                "shape": list(self.input.shape),
            },
            "outputs": list(self.outputs),
            "columns": names if len(names) in (len(self.preparation.columns), spec.num_features) else None,
            "categories": categories or None,
            "labels": labels if labels is not None else list(spec.class_names) if spec.class_names else None,
            "target_names": list(spec.target_names) if spec.target_names else None,
            "tokenizer": spec.tokenizer,
        }
        if spec.kind == "transactions":
            found["labels"] = found["columns"] = list(spec.feature_names or ()) or None
        return {key: value for key, value in found.items() if value is not None}
