"""The registry: what it lists, what it refuses and how, and that importing it costs nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import torch
from support import CHECKOUT

import zoo
from zoo import registry
from zoo.checks import check_type
from zoo.errors import ZooError, nearest, unknown_name
from zoo.models.mlp import MLP
from zoo.registry import _REGISTRY, model_entry
from zoo.tasks import KINDS, TASKS


def test_every_model_is_listed_once_and_sorted() -> None:
    names = zoo.list_models()
    assert names == sorted(set(names))
    assert {"linear_regression", "mlp"} <= set(names)


def test_models_are_found_by_pattern_family_and_task() -> None:
    assert zoo.list_models("linear*") == ["linear_regression"]
    assert zoo.list_models("no_such_*") == []
    for name in zoo.list_models():
        entry = model_entry(name)
        assert name in zoo.list_models(family=entry.family)
        assert all(name in zoo.list_models(task=task) for task in entry.task)
    assert "linear_regression" not in zoo.list_models(task="classification")


@pytest.mark.parametrize("name", zoo.list_models())
def test_an_entry_says_what_a_user_asks(name: str) -> None:
    entry = model_entry(name)
    assert entry.name == name
    assert entry.summary.endswith(".")
    assert len(entry.summary) > 20
    assert entry.source.strip()
    assert entry.task
    assert entry.cls.entry is entry
    assert entry.accepts
    assert all(target is None or (kind, target) in TASKS for kind, target in entry.accepts)
    assert set(entry.kinds) <= set(KINDS)
    with pytest.raises(FrozenInstanceError):
        entry.family = "other"  # type: ignore[misc]


def test_an_unknown_name_raises_with_the_nearest() -> None:
    with pytest.raises(ZooError, match=r"Unknown model 'mpl'\. Did you mean mlp.*Available: .*linear_regression"):
        zoo.create_model("mpl")


def test_an_unknown_hyperparameter_raises_with_the_nearest_and_the_valid_ones() -> None:
    with pytest.raises(ZooError, match=r"no hyperparameter 'width'\. Did you mean widths\? Valid: widths, acti"):
        zoo.create_model("mlp", width=3)


@pytest.mark.parametrize(
    ("hparams", "message"),
    [
        ({"dropout": "abc"}, "model.dropout must be a number, not 'abc'."),
        ({"dropout": True}, "model.dropout must be a number, not True."),
        ({"dropout": -0.1}, "model.dropout must be at least 0 and at most 1, not -0.1."),
        ({"dropout": float("nan")}, "model.dropout must be a number, not nan."),
        ({"widths": 3}, "model.widths must be a list, each item an integer, not 3."),
        ({"widths": [3, "x"]}, "model.widths must be a list, each item an integer, not [3, 'x']."),
        ({"widths": [0]}, "model.widths must all be at least 1, not [0]."),
        ({"batch_norm": 1}, "model.batch_norm must be true or false, not 1."),
    ],
)
def test_a_bad_hyperparameter_raises_one_line(hparams: dict[str, Any], message: str) -> None:
    with pytest.raises(ZooError) as caught:
        zoo.create_model("mlp", **hparams)
    assert str(caught.value) == message


def test_a_mistyped_choice_names_the_nearest() -> None:
    with pytest.raises(ZooError, match=r"one of relu, tanh.*not 'rellu'\. Did you mean relu"):
        zoo.create_model("mlp", activation="rellu")


@pytest.mark.parametrize(
    ("value", "annotation", "fits"),
    [
        (3, int, True), (3.0, int, False), (True, int, False), (3, float, True), ("3", float, False),
        (None, int | None, True), ("x", int | None, False), ("a", Literal["a", "b"], True),
        ("c", Literal["a", "b"], False), ([1, 2], list[int], True), ([1, 2.5], list[int], False),
        ([[1.0]], list[list[float]], True), ([[1]], list[list[float]] | None, True), ({}, dict[str, Any], True),
        ([], dict[str, Any], False), (object(), Any, True), (1, bool, False),
        # what a plugin's annotation may bring, and cannot be hashed
        (2, Annotated[int, [1, 2]], True), (3, Annotated[int, [1, 2]], False),
        ([2], list[Annotated[int, [1, 2]]], True),
    ],
)  # fmt: skip
def test_types_are_checked_as_annotated(value: Any, annotation: Any, fits: bool) -> None:
    if fits:
        assert check_type("key", value, annotation) == value
        return
    with pytest.raises(ZooError, match=r"^key must be "):
        check_type("key", value, annotation)


def test_numbers_of_numpy_become_plain_ones() -> None:
    import numpy as np

    model = zoo.create_model("mlp", widths=[np.int64(4)], dropout=np.float64(0.25))
    assert [type(w) for w in model.hparams["widths"]] == [int]
    assert type(model.hparams["dropout"]) is float


@pytest.fixture
def forget() -> Any:
    """Forget what a test registers."""
    before = dict(_REGISTRY)
    yield
    _REGISTRY.clear()
    _REGISTRY.update(before)


def register(name: str) -> type:
    @zoo.register_model(name, family="mine", accepts={"tabular": "class"}, source="me")
    class Mine(MLP):
        """A model of one's own."""

    return Mine


@pytest.mark.usefixtures("forget")
def test_models_of_ones_own_are_registered_and_created() -> None:
    mine = register("my_model")
    assert zoo.list_models("my_*", family="mine") == ["my_model"]
    spec = zoo.DataSpec("tabular", (4,), "class", num_classes=3)
    model = zoo.create_model("my_model", spec, widths=[5])
    assert isinstance(model, mine)
    assert model(torch.zeros(2, 4)).shape == (2, 3)


@pytest.mark.usefixtures("forget")
def test_a_second_registration_raises() -> None:
    with pytest.raises(ZooError, match="A model named 'mlp' is registered already"):
        register("mlp")
    assert model_entry("mlp").cls is MLP


class BrokenEntryPoint:
    """An entry point of a package that cannot be imported any more."""

    name, value = "their_models", "theirs.models"
    dist = None

    def load(self) -> None:
        raise ModuleNotFoundError("No module named 'theirs'")


def test_a_broken_entry_point_is_a_warning_and_breaks_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.registry.entry_points", lambda group: [BrokenEntryPoint()])
    registry._import_foreign.cache_clear()
    with pytest.warns(UserWarning, match=r"The models of 'their_models' \(theirs\.models, .*No module named 'theirs'"):
        assert "kmeans" in zoo.list_models()
    assert zoo.create_model("mlp").hparams.dropout == 0
    registry._import_foreign.cache_clear()
    with pytest.warns(UserWarning, match="their_models"), pytest.raises(ZooError, match="Unknown model 'their_model'"):
        zoo.create_model("their_model")
    registry._import_foreign.cache_clear()


def test_an_unknown_family_or_task_raises_with_the_nearest() -> None:
    with pytest.raises(ZooError, match=r"Unknown family 'clusterin'\. Did you mean clustering"):
        zoo.list_models(family="clusterin")
    with pytest.raises(ZooError, match=r"Unknown task 'regresion'\. Did you mean regression"):
        zoo.list_models(task="regresion")


@pytest.mark.parametrize(
    ("accepts", "message"),
    [
        ({"tabluar": "class"}, r"Unknown kind of data 'tabluar'\. Did you mean tabular"),
        ({"tabular": "classes"}, r"Unknown target of tabular data 'classes'\. Did you mean class"),
        ({"series": "class"}, r"Unknown target of series data 'class'"),
        ({"tabular": None}, "needs a task such as clustering"),
    ],
)
def test_a_pair_that_is_not_in_the_table_is_refused(accepts: dict[str, Any], message: str) -> None:
    with pytest.raises(ZooError, match=message):
        zoo.register_model("nothing", family="mine", accepts=accepts, source="me")


def test_the_table_names_objectives_and_metrics_that_exist() -> None:
    from zoo.models.base.objectives import OBJECTIVES, make_objective

    for (kind, target), task in TASKS.items():
        many = 5 if target == "bits" else 1
        spec = zoo.DataSpec(kind, (4,), target, num_classes=3, num_targets=many, vocab_size=5)  # type: ignore[arg-type]
        objective = make_objective(spec)
        assert type(objective) is OBJECTIVES[task.objective]
        assert (objective.num_outputs == 5) == (task.head == "each_step")
        assert task.monitor.partition("/")[2] in ("loss", *task.metrics)
        assert set(objective.pooling()) <= set(task.metrics)


def test_a_model_is_built_once_and_for_one_kind_of_data() -> None:
    """The same kind, however long its sequences are; another vocabulary, target or number of classes is refused."""
    spec = zoo.DataSpec("tokens", (6,), "class", num_classes=3, vocab_size=9)
    model = zoo.create_model("lstm", spec, hidden_size=4)
    assert model.build(replace(spec, shape=(11,))) is model
    for other in (replace(spec, vocab_size=10), replace(spec, num_classes=4), replace(spec, target="tokens")):
        with pytest.raises(ZooError, match=r"The model was built for tokens data \(6\) with class targets and 3"):
            model.build(other)


# What a fresh interpreter does, one after the other.
STEPS = {
    "zoo": "import zoo",
    "names": "zoo.list_models('k*')",
    "layers": "import zoo.layers",
    "fit": "zoo.fit(zoo.create_model('kmeans', num_clusters=2), [[0.0], [1.0], [2.0]])",
    "model": "from zoo.sklearn import KMeans\nzoo.create_model('kmeans')",
    "visual": "import zoo.visual",
    "picture": "zoo.visual.save(zoo.visual.curve([1.0, 2.0]), os.devnull)",
}
TAKEN = """
from zoo.models.base import GradientModel

class Mine(GradientModel):
    'Mine.'

try:
    zoo.register_model('mlp', family='f', accepts={'tabular': 'class'}, source='me')(Mine)
except zoo.ZooError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def fresh() -> list[str]:
    """What a fresh interpreter has imported after each step, and how it refuses a model named mlp."""
    code = "import os, sys\n" + "".join(f"{step}\nprint(*sys.modules)\n" for step in STEPS.values()) + TAKEN
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=CHECKOUT, check=True)
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def imported(fresh: list[str]) -> dict[str, set[str]]:
    """The modules that are there after each step, and the packages that they are of."""
    said = {step: line.split() for step, line in zip(STEPS, fresh, strict=False)}
    return {step: {*names, *(name.partition(".")[0] for name in names)} for step, names in said.items()}


def test_importing_zoo_imports_neither_torch_nor_hydra(imported: dict[str, set[str]]) -> None:
    assert "zoo" in imported["zoo"]
    heavy = {"torch", "hydra", "lightning", "sklearn", "numpy", "omegaconf"}
    assert not heavy & imported["zoo"]


def test_names_are_listed_without_importing_any_model(imported: dict[str, set[str]]) -> None:
    assert not {"torch", "lightning"} & imported["names"]


def test_importing_layers_imports_torch_alone(imported: dict[str, set[str]]) -> None:
    assert "torch" in imported["layers"]
    others = {"hydra", "lightning", "omegaconf", "torchmetrics", "sklearn", "matplotlib"}
    assert not others & imported["layers"]


def test_pyplot_is_never_imported_and_matplotlib_only_when_drawing(imported: dict[str, set[str]]) -> None:
    assert "matplotlib" not in imported["visual"]
    assert "matplotlib" in imported["picture"]
    assert "matplotlib.pyplot" not in imported["picture"]


def test_only_the_module_of_the_model_that_is_asked_for_is_imported(imported: dict[str, set[str]]) -> None:
    """By an estimator, too; and nothing of what Lightning imports for others."""
    found = imported["model"]
    assert {name.split(".")[2] for name in found if name.startswith("zoo.models.")} == {"base", "kmeans"}
    assert "lightning" in found
    heavy = {"torch._dynamo", "triton", "transformers", "torchvision", "matplotlib", "tensorboard", "scipy.signal"}
    assert not heavy & found
    assert not {"torchmetrics.functional", "zoo.training.trainer", "zoo.sklearn.svm", "sklearn.ensemble"} & found


def test_a_fit_of_arrays_imports_nothing_for_tables_and_texts(imported: dict[str, set[str]]) -> None:
    assert "zoo.training.fit" in imported["fit"]
    assert not {"pyarrow", "tokenizers", "zoo.data.text_arrays", "zoo.training.trainer"} & imported["fit"]


def test_a_name_of_the_zoo_is_taken_even_before_the_zoo_is_loaded(fresh: list[str]) -> None:
    assert "registered already" in fresh[-1]


def top_imports(path: Path) -> set[str]:
    """The top-level packages that a module imports outside its functions (and outside `if TYPE_CHECKING`)."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
    return found


@pytest.mark.parametrize("path", sorted((CHECKOUT / "zoo").rglob("*.py")), ids=lambda p: p.stem)
def test_what_few_need_is_imported_where_it_is_needed(path: Path) -> None:
    late = {"matplotlib", "sklearn", "scipy", "pandas"}
    if "training" not in path.parts:
        late |= {"hydra", "omegaconf"}
    if "sklearn" in path.parts:
        late -= {"sklearn", "scipy"}  # which comes with it
    if "layers" in path.parts:
        late |= {"lightning", "torchmetrics"}
    assert not late & top_imports(path)


def test_the_package_says_what_it_has() -> None:
    assert set(zoo.__all__) <= set(dir(zoo))
    assert all(getattr(zoo, name) is not None for name in zoo.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        zoo.nothing  # noqa: B018


def test_nearest_names() -> None:
    assert nearest("kmean", ["kmeans", "mlp"]) == " Did you mean kmeans?"
    assert nearest("zzz", ["kmeans", "mlp"]) == ""
    assert str(unknown_name("data", "iri", ["wine", "iris"])).startswith("Unknown data 'iri'. Did you mean iris?")
