"""Compiled networks, and activations that are computed again, end in the weights of the plain way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support import CPU, TINY, compose, run_command
from torch import Tensor, nn

import zoo
from zoo.training.execution import Compiled
from zoo.training.run import build, check_trainer
from zoo.training.trainer import make_trainer, seed_all

TEXTS = {
    "gpt": ["data=python_docs", "model.layers=zoo"],
    "gpt of torch's layers": ["data=python_docs", "model.layers=torch"],
    "transformer": ["data=dates"],
    "transformer_encoder": ["data=digits"],
}


def trained(overrides: list[str], **options: Any) -> tuple[dict[str, Tensor], Any]:
    """Return the weights after two steps, and the model."""
    seed_all(0)
    model, data = build(compose(*overrides, CPU))
    trainer = make_trainer(model, max_steps=2, accelerator="cpu", progress=False, logger=False, **options)
    trainer.fit(model, datamodule=data)
    return {name: value.clone() for name, value in model.state_dict().items()}, model


@pytest.mark.parametrize("case", TEXTS)
def test_activations_that_are_computed_again(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same masks of dropout, the same bits; and each layer is gone through twice a step."""
    name = case.split()[0]
    command = [f"model={name}", *TINY.get(name, []), *TEXTS[case], "model.dropout=0.3"]
    plain, model = trained(command)
    calls = []
    kinds = (zoo.layers.TransformerEncoderLayer, nn.TransformerEncoderLayer)
    for kind in kinds:

        def counted(layer: Any, *args: Any, forward: Any = kind.forward, **options: Any) -> Tensor:
            calls.append(layer)
            return forward(layer, *args, **options)

        monkeypatch.setattr(kind, "forward", counted)
    again, model = trained(command, activation_checkpointing=True)
    for key, value in plain.items():
        torch.testing.assert_close(again[key], value, rtol=0, atol=0, msg=key)
    layers = sum(isinstance(module, kinds) for module in model.modules())
    assert len(calls) >= 2 * 2 * layers  # in two steps
    assert not any("forward" in vars(module) for module in model.modules())


@pytest.mark.parametrize("command", [["model=mlp", "data=iris"], ["model=cnn", "model.channels=[4]"]])
def test_a_compiled_network_ends_in_the_same_weights(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        graphs.append(graph)
        return graph.forward

    plain, _ = trained(command)
    monkeypatch.setattr(Compiled.__init__, "__defaults__", (backend,))
    compiled, model = trained(command, compile=True)
    assert graphs
    assert list(compiled) == list(plain)
    for key, value in plain.items():
        torch.testing.assert_close(compiled[key], value, msg=key)
    assert model._compiled_call_impl is None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlp", "gpt"])
def test_torchs_own_compiler(name: str) -> None:
    command = [f"model={name}", *TINY.get(name, [])]
    plain, compiled = trained(command)[0], trained(command, compile=True)[0]
    for key, value in plain.items():
        torch.testing.assert_close(compiled[key], value, rtol=1e-4, atol=1e-5, msg=key)


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["model=lstm", "trainer.compile=true"], "does nothing for lstm"),
        (["model=kmeans", "trainer.compile=true"], "does nothing for kmeans"),
        (["model=mlp", "trainer.activation_checkpointing=true"], "no transformer layers"),
        (["model=mlp", "trainer.compile=maybe"], "trainer.compile"),
    ],
)
def test_where_they_do_nothing(
    command: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command([*command, f"run_dir={tmp_path / 'run'}", CPU]) == 1
    assert says in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_run_of_before_there_was_a_choice_goes_on() -> None:
    check_trainer(Path("run"), {"max_epochs": 2}, {"trainer": {"max_epochs": 2, "compile": False}})
