"""Going on from another run: all of its weights, or adapters beside them, saved, resumed, merged and exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support import compose

import zoo
from zoo.data.spec import DataSpec
from zoo.layers.lora import lora_parameters
from zoo.training.checkpoint import load_checkpoint, load_model, save_model
from zoo.training.run import _without_others_options

TINY: dict[str, Any] = {"num_layers": 2, "num_heads": 2, "hidden_size": 8, "dropout": 0.0}
SPECS = {
    "gpt": DataSpec("tokens", (6,), "tokens", vocab_size=9),
    "bert": DataSpec("tokens", (6,), "tokens", vocab_size=9),
    "transformer_encoder": DataSpec("tokens", (6,), "class", num_classes=3, vocab_size=9),
}
TEXTS = [[1, 2, 3, 4, 5, 6], [7, 8, 1, 2, 5, 5], [3, 3, 4, 4, 8, 1]] * 4


@pytest.fixture(params=SPECS)
def before(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Any, dict[str, Any]]:
    """A model of each kind, and what one that goes on from it is told."""
    torch.manual_seed(0)
    model = zoo.create_model(request.param, SPECS[request.param], **TINY).eval()
    save_model(model, tmp_path / "pre.ckpt")
    return request.param, model, {**TINY, "pretrained": str(tmp_path / "pre.ckpt")}


def answer(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(torch.tensor(TEXTS))


def same_head(model: Any, other: Any) -> None:
    """What pre-training does not hand on is drawn anew: give both the same."""
    model.load_state_dict({k: v for k, v in other.state_dict().items() if not model._in_body(k)}, strict=False)


def test_adapters_begin_where_the_run_ended_and_alone_learn(before: Any) -> None:
    name, old, options = before
    model = zoo.create_model(name, SPECS[name], **options, lora_rank=2)
    same_head(model, old)
    torch.testing.assert_close(answer(model), answer(old), rtol=0, atol=0)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    targets = [0, 1, 2] * 4 if name == "transformer_encoder" else None
    zoo.fit(model, TEXTS, targets, max_epochs=1, batch_size=4, device="cpu")
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, state[key])}
    body = {key for key in changed if model._in_body(key)}
    assert body == {key for key in state if ".parametrizations." in key and key.endswith((".a", ".b"))}
    assert (len(changed) > len(body)) == (name != "gpt")  # heads that are new


def test_adapters_are_saved_loaded_and_merged(before: Any, tmp_path: Path) -> None:
    name, _, options = before
    model = zoo.create_model(name, SPECS[name], **options, lora_rank=2, lora_alpha=4.0)
    for parameter in lora_parameters(model):
        torch.nn.init.normal_(parameter)
    expected = answer(model)
    save_model(model, tmp_path / "tuned.ckpt")
    (tmp_path / "pre.ckpt").unlink()
    again = load_model(tmp_path / "tuned.ckpt")
    assert torch.equal(answer(again), expected)
    learns = [p.requires_grad for p in model.parameters()]
    assert learns == [p.requires_grad for p in again.parameters()]
    merged = model.merged()
    assert torch.equal(answer(merged), expected)
    assert torch.equal(answer(model), expected)
    save_model(merged, tmp_path / "merged.ckpt")
    assert "lora" not in "".join(load_checkpoint(tmp_path / "merged.ckpt")["state_dict"])
    plain = load_model(tmp_path / "merged.ckpt")
    assert plain.hparams.lora_rank is None
    assert torch.equal(answer(plain), expected)
    with pytest.raises(zoo.ZooError, match=r"has adapters: save what model\.merged"):
        zoo.create_model(name, SPECS[name], **{**options, "pretrained": str(tmp_path / "tuned.ckpt")})


@pytest.mark.parametrize("name", ["gpt", "bert"])
def test_a_folder_of_hugging_face_holds_what_adapters_have_learnt(name: str, tmp_path: Path) -> None:
    model = zoo.create_model(name, SPECS[name], **TINY)
    model.adapt(rank=2)
    for parameter in lora_parameters(model):
        torch.nn.init.normal_(parameter)
    zoo.save_pretrained(model, tmp_path)
    torch.testing.assert_close(answer(zoo.load_pretrained(tmp_path)), answer(model), rtol=0, atol=0)
    with pytest.raises(zoo.ZooError, match="adapters already"):
        model.adapt(rank=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lora_rank": 2}, r"model\.lora_rank=2 does nothing with model\.pretrained=null"),
        ({"lora_alpha": 2.0}, r"model\.lora_alpha=2\.0 does nothing with model\.lora_rank=null"),
        ({"lora_rank": 0}, "lora_rank"),
        ({"lora_rank": 1, "lora_alpha": 0.0}, "lora_alpha"),
    ],
)
def test_adapters_that_do_nothing_are_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(zoo.ZooError, match=message):
        zoo.create_model("gpt", **options)


def test_a_rank_out_of_range_leaves_the_model_as_it_was() -> None:
    spec = zoo.DataSpec("tokens", (4,), "tokens", vocab_size=5)
    model: Any = zoo.create_model("gpt", spec, num_layers=1, num_heads=1, hidden_size=4)
    for rank, alpha, said in (
        (0, None, "lora_rank must be at least 1"),
        ("8", None, "an integer"),
        (2, -1.0, "above 0"),
    ):
        with pytest.raises(zoo.ZooError, match=said):
            model.adapt(rank, alpha)
    model.adapt(2)
    assert model.hparams.lora_rank == 2


def test_what_is_no_run_to_begin_with_is_one_line(tmp_path: Path) -> None:
    spec = zoo.DataSpec("tokens", (4,), "tokens", vocab_size=5)
    (tmp_path / "junk.ckpt").write_bytes(b"junk" * 50)
    (tmp_path / "config.json").write_text("{}")
    for path, said in (("junk.ckpt", "is no whole checkpoint"), ("", "is of model_type None; the zoo reads")):
        with pytest.raises(zoo.ZooError, match=said):
            zoo.create_model("gpt", spec, pretrained=str(tmp_path / path))


def test_a_vocabulary_that_is_there_needs_no_special_tokens_of_the_models_config() -> None:
    """`data.tokenizer=RUN/tokenizer.json` of fine-tuning was refused: bert's config names those of a learned one."""
    learned, given = (
        compose("model=bert", "data=csv", "data.text=t", "data.target=y", f"data.tokenizer={tokenizer}")
        for tokenizer in ("wordpiece", "run/tokenizer.json")
    )
    assert "special_tokens" in _without_others_options(learned, [])["data"]
    assert "special_tokens" not in _without_others_options(given, [])["data"]
    assert "special_tokens" in _without_others_options(given, ["data.special_tokens=[pad]"])["data"]
