"""What TensorBoard shows of a run beside its losses, read back from the events."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve
from support import CPU, run_command
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import zoo
from zoo.data.array_data import ArrayData
from zoo.models.mlp import MLP
from zoo.training.pictures import draw
from zoo.training.trainer import make_trainer
from zoo.visual import coefficients, gates, precision_recall, roc, rows_of
from zoo.visual.thresholds import threshold_curve


def events(folder: Path) -> EventAccumulator:
    found = EventAccumulator(str(folder), size_guidance={"tensors": 0, "scalars": 0, "histograms": 0})
    found.Reload()
    return found


def trained(folder: Path, data: Any, name: str = "mlp", hparams: dict | None = None, **options: Any) -> Any:
    model = zoo.create_model(name, **(hparams or {}))
    trainer = make_trainer(model, run_dir=folder, accelerator="cpu", progress=False, log_every_n_steps=2, **options)
    trainer.fit(model, datamodule=data)
    return model


def test_gauges_of_a_gradient_model(tmp_path: Path) -> None:
    x = torch.randn(80, 3)
    data = ArrayData(x, (x[:, 0] > 0).long(), batch_size=10)
    norms: list[float] = []

    ratios: list[float] = []

    class Watch(MLP):
        def on_train_batch_end(self, *args: Any) -> None:
            super().on_train_batch_end(*args)
            ratios.append(float((self.net[1].weight - self.before).norm() / self.before.norm()))

        def on_before_optimizer_step(self, optimizer: Any) -> None:
            self.before = self.net[1].weight.detach().clone()
            norms.append(float(torch.cat([p.grad.flatten() for p in self.parameters()]).norm()))

    model = Watch(widths=[4])
    trainer = make_trainer(
        model, run_dir=tmp_path, max_epochs=3, accelerator="cpu", progress=False, log_every_n_steps=2, histograms=True,
        gradient_clip_val=0.01,
    )  # fmt: skip
    trainer.fit(model, datamodule=data)
    found = events(tmp_path)
    of = {tag: found.Scalars(tag) for tag in found.Tags()["scalars"]}
    assert {round(e.value, 6) for e in of["train/learning_rate"]} == {1e-3}
    steps = [e.step for e in of["train/gradient_norm"]]
    assert set(range(1, 24, 2)) <= set(steps)  # every second of 24 steps
    for event in of["train/gradient_norm"]:  # of the whole gradient, before it was clipped
        assert event.value == pytest.approx(norms[event.step], rel=1e-5)
    seconds = [e.value for e in of["train/seconds"]]
    assert seconds == sorted(seconds)
    spans = [now - before for now, before in zip(seconds, [0.0, *seconds], strict=False)]
    rows = sum(e.value * span for e, span in zip(of["train/rows_per_second"], spans, strict=True))
    assert rows == pytest.approx(10 * (steps[-1] + 1), rel=1e-3)
    assert "parameters/net.1.weight" in found.Tags()["histograms"]
    assert [e.step for e in found.Histograms("parameters/net.1.weight")] == [0, 8, 16, 24]
    assert [e.step for e in found.Histograms("gradients/net.1.weight")] == [8, 16, 24]
    assert [e.value for e in of["update_to_weight/net.1.weight"]] == pytest.approx(ratios[7::8], rel=1e-5)


def test_a_text_counts_its_tokens_and_a_solved_model_has_no_gauges(tmp_path: Path) -> None:
    data = ArrayData([[1, 2, 3], [4]] * 8, [0, 1] * 8, kind="tokens", batch_size=4)
    trained(tmp_path / "lstm", data, "lstm", {"hidden_size": 4}, max_epochs=1)
    found = events(tmp_path / "lstm")
    speeds, seconds = ([e.value for e in found.Scalars(f"train/{n}")] for n in ("tokens_per_second", "seconds"))
    spans = [now - before for now, before in zip(seconds, [0.0, *seconds], strict=False)]
    count = sum(speed * span for speed, span in zip(speeds, spans, strict=True))
    assert count == pytest.approx(8 * 3 + 8, rel=1e-3)  # padding is no token
    trained(tmp_path / "short", ArrayData(torch.randn(8, 2), torch.arange(8) % 2), max_epochs=1)  # a step or none
    assert len(events(tmp_path / "short").Scalars("train/gradient_norm")) == 1
    trained(tmp_path / "tree", ArrayData(torch.randn(20, 2), torch.arange(20) % 2), "decision_tree")
    tags = events(tmp_path / "tree").Tags()["scalars"]
    assert not {"train/learning_rate", "train/seconds"} & set(tags)


def test_a_run_shows_its_config_and_its_pictures_name_their_split(tmp_path: Path) -> None:
    assert run_command(f"model=decision_tree data=iris {CPU} run_dir={tmp_path / 'run'}".split(), pictures=True) == 0
    found = events(tmp_path / "run")
    text = found.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "    name: decision_tree" in text
    assert {"confusion_matrix", "roc", "precision_recall"} <= set(found.Tags()["images"])


@pytest.mark.parametrize("ties", [False, True])
def test_threshold_curves_are_those_of_scikit_learn(ties: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    y, score = torch.rand(200, generator=generator) > 0.7, torch.rand(200, generator=generator, dtype=torch.float64)
    score = (score * 5).round() if ties else score + 0.3 * y
    found = threshold_curve(y, score)
    assert found.area == pytest.approx(roc_auc_score(y, score), rel=1e-12)
    assert found.average_precision == pytest.approx(average_precision_score(y, score), rel=1e-12)
    false, true, _ = roc_curve(y, score, drop_intermediate=False)
    assert torch.allclose(found.false, torch.from_numpy(false), rtol=1e-12)
    assert torch.allclose(found.found, torch.from_numpy(true), rtol=1e-12)


@pytest.mark.parametrize("picture", [roc, precision_recall])
def test_curves_of_classes_one_against_the_rest(picture: Any) -> None:
    y = torch.arange(40) % 4
    y[y == 3] = 0  # a class that never occurs
    probability = torch.rand(40, 4).softmax(1)
    spec = zoo.DataSpec("tabular", (2,), "class", num_classes=4, class_names=("a", "b", "c", "d"))
    with rows_of("val"):
        figure = picture(y, probability, spec)
    assert [text.get_text()[0] for text in figure.axes[0].get_legend().get_texts()] == ["a", "b", "c"]
    assert figure.axes[0].get_title(loc="left").endswith("· val")
    two = picture(y % 2, probability[:, :2], zoo.DataSpec("tabular", (2,), "class", num_classes=2))
    assert len(two.axes[0].get_legend().get_texts()) == 1


def test_pictures_of_a_fitted_model(tmp_path: Path) -> None:
    x = torch.randn(40, 3)
    data = ArrayData(x, torch.arange(40) % 2, test_fraction=0.5)
    model = zoo.fit(zoo.create_model("logistic_regression", solver="exact"), data, l2=0.1)
    names = {file.stem for file in draw(model, data, "test", tmp_path)}
    assert {"confusion_matrix", "coefficients", "roc", "precision_recall"} <= names


def test_coefficients_have_names_and_the_largest_come_first() -> None:
    spec = zoo.DataSpec("tabular", (30,), "value", feature_names=tuple(f"f{i}" for i in range(30)))
    figure: Figure = coefficients(torch.arange(-15.0, 15.0)[None], spec, ["y"])
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert len(labels) == 20
    assert labels[-1] == "f0"  # the largest in size, -15, on top


def test_gates_stand_between_0_and_1_with_the_cell_state_beside() -> None:
    x = torch.randn(20, 6, 3)
    model = zoo.fit(zoo.create_model("lstm", hidden_size=4), x, torch.arange(20) % 2, max_epochs=1, device="cpu")
    activations = model.gate_activations(x[:1])
    assert list(activations)[-1] == "cell state"
    expected = activations["output"] * activations["cell state"].tanh()  # h = o tanh(c)
    assert torch.allclose(activations["hidden"], expected, atol=1e-6)
    figure = gates(activations)
    limits = {axes.get_title(loc="left").split()[0]: axes.images[0].get_clim() for axes in figure.axes if axes.images}
    assert limits["forget"] == (0, 1)
    assert limits["hidden"][0] < 0
