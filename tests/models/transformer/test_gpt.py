"""gpt: against `transformers`, with built-in layers, with a cache and without, from a folder and back."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import zoo
from zoo.models.transformer import GPT
from zoo.optimizers import Recipe
from zoo.text import Tokenizer

TOKENIZER = Tokenizer.train(["abcdefgh .\n"], "char", special_tokens=["end", "unknown"])
SPEC = zoo.DataSpec(
    kind="tokens", shape=(16,), target="tokens", vocab_size=TOKENIZER.vocab_size, tokenizer=TOKENIZER.to_json()
)
PROMPTS = ["abc", "h", "ab ab ab.", "", "ffff"]
WAYS: dict[str, dict[str, Any]] = {
    "greedy": {"decoding": "greedy"},
    "sample": {"temperature": 1.2, "top_p": 0.9, "seed": 3},
    "beam": {"decoding": "beam", "num_beams": 3, "repetition_penalty": 1.2},
}


def sharp(seed: int = 0, **options: Any) -> GPT:
    """A small model whose tokens differ by more than rounding."""
    torch.manual_seed(seed)
    model: Any = zoo.create_model("gpt", SPEC, **{"num_layers": 2, "num_heads": 2, "hidden_size": 16, **options})
    for name, parameter in model.named_parameters():
        parameter.data.mul_(8) if parameter.ndim > 1 else parameter.data.add_(0.3 * torch.randn_like(parameter))
        assert name
    return model.double()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("options", [{}, {"bias": False}, {"layers": "torch"}, {"tie_embeddings": False}])
def test_a_prompt_is_gone_on_with_as_if_it_were_alone_beyond_the_context_too(way: str, options: dict[str, Any]) -> None:
    model, asked = sharp(**options), {"steps": 30, **WAYS[way]}
    together = model.generate(PROMPTS, **asked)
    assert together == [model.generate(prompt, **asked) for prompt in PROMPTS]
    assert together == model.generate(PROMPTS, cache=False, **asked)


def test_a_draft_changes_nothing_but_the_time() -> None:
    model, draft = sharp(), sharp(seed=1, num_layers=1)
    recurrent: Any = zoo.create_model("gru", SPEC, hidden_size=8)
    for prompt in PROMPTS[1:4]:
        alone = model.generate(prompt, 24, decoding="greedy")
        for other in (draft, model, recurrent):
            assert model.generate(prompt, 24, decoding="greedy", draft=other) == alone
        assert recurrent.generate(prompt, 9, temperature=0.0, draft=model) == recurrent.generate(
            prompt, 9, decoding="greedy"
        )


def test_built_in_layers_have_the_same_weights_and_answers() -> None:
    ours, theirs = sharp(), sharp(layers="torch")
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    tokens = torch.randint(0, TOKENIZER.vocab_size, (3, 16))
    torch.testing.assert_close(ours(tokens), theirs(tokens), rtol=1e-10, atol=1e-10)
    for model in (ours, theirs):
        model.train()(tokens).square().sum().backward()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-9, atol=1e-9 * float(other.grad.abs().max()))
    torch.testing.assert_close(ours.attention(tokens), theirs.attention(tokens), rtol=1e-10, atol=1e-10)


def test_attention_maps_are_those_that_the_model_looks_with() -> None:
    model = sharp().eval()
    weights = model.attention(torch.randint(0, 9, (2, 7)))
    assert weights.shape == (2, 2, 2, 7, 7)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 2, 2, 7, dtype=torch.float64))
    assert not weights.triu(1).any()


def test_no_token_sees_what_comes_after_it() -> None:
    model = sharp().eval()
    tokens = torch.randint(0, 9, (1, 12))
    changed = tokens.clone()
    changed[0, 8:] = (tokens[0, 8:] + 1) % 9
    assert torch.equal(model(tokens)[0, :8], model(changed)[0, :8])
    assert not torch.allclose(model(tokens)[0, 8:], model(changed)[0, 8:])


def test_weight_decay_leaves_biases_and_gains_alone() -> None:
    model = sharp()
    optimizer = Recipe("adamw", {"lr": 0.1, "weight_decay": 0.5}).build_optimizer(model)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, value in model.named_parameters():
        factor = 0.95 if value.ndim > 1 else 1.0
        torch.testing.assert_close(value.detach(), factor * before[name], msg=name)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(before)


def test_weights_are_drawn_as_gpt2_draws_them() -> None:
    model: Any = zoo.create_model("gpt", SPEC, num_layers=8, hidden_size=128)
    for name, parameter in model.named_parameters():
        wanted = 0.02 / 4 if name.endswith(("out_proj.weight", "linear2.weight")) else 0.02
        if parameter.ndim > 1:
            assert float(parameter.detach().std()) == pytest.approx(wanted, rel=0.1), name
        else:
            assert bool((parameter == float(name.endswith("weight"))).all()), name


@pytest.mark.parametrize("kind", ["char", "bpe"])
def test_bits_per_character_count_characters(kind: str) -> None:
    text = "naïve 水 abc abc abc. " * 40
    tokenizer = Tokenizer.train([text], kind, vocab_size=300)
    ids = tokenizer.encode(text)
    assert int(tokenizer.characters[ids].sum()) == len(text)
    rows = len(ids) // 8
    spec = zoo.DataSpec(
        kind="tokens", shape=(8,), target="tokens", vocab_size=tokenizer.vocab_size, tokenizer=tokenizer.to_json()
    )
    model: Any = zoo.create_model("gpt", spec, num_layers=1, num_heads=2, hidden_size=8)
    tokens = ids[: 8 * rows].view(rows, 8)
    found = zoo.evaluate(model, zoo.Batch(tokens=tokens, y=tokens), batch_size=7)
    total = found["loss"] * tokens.numel() / torch.log(torch.tensor(2.0)).item()
    assert found["bits_per_character"] == pytest.approx(total / len(tokenizer.decode(tokens.flatten())), rel=1e-5)
    assert found["perplexity"] == pytest.approx(torch.tensor(found["loss"]).exp().item(), rel=1e-5)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"hidden_size": 10, "num_heads": 4}, "model.hidden_size=10 must be a multiple of model.num_heads=4"),
        ({"context": 8}, "model.context=8 is shorter than the data's windows of 16 tokens"),
        ({"dropout": 1.5}, "model.dropout must be"),
    ],
)
def test_what_no_model_can_be_is_one_line(options: dict[str, Any], said: str) -> None:
    with pytest.raises(zoo.ZooError, match=said):
        zoo.create_model("gpt", SPEC, **options)


def test_a_prompt_longer_than_the_context_is_one_line() -> None:
    with pytest.raises(zoo.ZooError, match=r"The prompt 'a+' has 17 tokens, and the model sees 16: shorten it\."):
        sharp().generate(["b", 17 * "a"])
    assert len(sharp().generate(16 * "a", 1, temperature=0.0)) > 16


# -- folders ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"tie_embeddings": False, "activation": "relu"}, {"bias": False}])
def test_a_folder_comes_back_as_it_was(options: dict[str, Any], tmp_path: Path) -> None:
    model = sharp(**options).float()
    zoo.save_pretrained(model, tmp_path / "folder")
    again: Any = zoo.load_pretrained(tmp_path / "folder")
    tokens = torch.randint(0, 9, (2, 16))
    torch.testing.assert_close(again(tokens), model.eval()(tokens), rtol=1e-6, atol=1e-6)
    assert again.generate("abc", 20) == model.generate("abc", 20)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop("transformer.h.1.mlp.c_fc.bias"), "lacks the tensor transformer.h.1.mlp.c_fc.bias"),
        (
            lambda t: t.update({"transformer.h.0.attn.c_attn.weight": torch.zeros(16, 40)}),
            r"attn.c_attn.weight of .* has shape \(16, 40\); its config.json asks for \(16, 48\)",
        ),
        (lambda t: t.update({"transformer.h.2.ln_1.bias": torch.zeros(16)}), "holds the tensor transformer.h.2.ln_1"),
        (lambda t: t.update({"transformer.ln_f.bias": torch.zeros(16, dtype=torch.int8)}), "holds torch.int8"),
    ],
)
def test_a_wrong_or_missing_tensor_is_one_line(change: Any, said: str, tmp_path: Path) -> None:
    zoo.save_pretrained(sharp().float(), tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    change(tensors)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(zoo.ZooError, match=said) as caught:
        zoo.load_pretrained(tmp_path)
    assert "\n" not in str(caught.value)


def test_folders_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(zoo.ZooError, match=r"has no config\.json"):
        zoo.load_pretrained(tmp_path)
    with pytest.raises(zoo.ZooError, match=r"There is no file or folder \./nowhere"):
        zoo.load_pretrained("./nowhere")
    zoo.save_pretrained(sharp().float(), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for changes, said in (
        ({"model_type": "mamba"}, "is of model_type 'mamba'; the zoo reads"),
        ({"activation_function": "swish"}, "asks for activation_function=swish"),
        ({"layer_norm_epsilon": 1e-3}, "asks for layer_norm_epsilon=0.001"),
        ({"vocab_size": 5}, "has 13 tokens, and config.json says 5"),
        ({"vocab_size": None}, "vocab_size of .* must be an integer of at least 1, not null"),
        ({"model_type": ["gpt2"]}, "is of model_type .'gpt2'."),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config | changes))
        with pytest.raises(zoo.ZooError, match=said):
            zoo.load_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(zoo.ZooError, match="holds a list, not the settings of a model"):
        zoo.load_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(zoo.ZooError, match=r"has no model\.safetensors"):
        zoo.load_pretrained(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": 3}}')
    with pytest.raises(zoo.ZooError, match="does not say in its weight_map"):
        zoo.load_pretrained(tmp_path)
    with pytest.raises(zoo.ZooError, match="is a file: pass the folder to write"):
        zoo.save_pretrained(sharp().float(), tmp_path / "config.json")
    labels = zoo.DataSpec("tokens", (4,), "class", num_classes=2, vocab_size=5)
    tokens = torch.tensor([[1, 2, 3]])
    for model in (zoo.create_model("bert", labels, hidden_size=4), zoo.create_model("gru", SPEC, hidden_size=4)):
        zoo.save_pretrained(model, tmp_path / "own")  # what transformers has no form of, in the same place twice
        again: Any = zoo.load_pretrained(tmp_path / "own")
        assert again.entry.name == model.entry.name
        torch.testing.assert_close(again(tokens), model.eval()(tokens), rtol=0, atol=0)


# -- beside transformers ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def theirs() -> Any:
    """GPT-2 of transformers with random weights, large enough that no two tokens are alike."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        n_layer=2, n_head=4, n_embd=16, n_positions=64, vocab_size=TOKENIZER.vocab_size, eos_token_id=0, bos_token_id=0
    )
    model = transformers.GPT2LMHeadModel(config)
    for parameter in model.parameters():
        parameter.data.mul_(6 if parameter.ndim > 1 else 1).add_(0.2 * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture(scope="module")
def ours(theirs: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The same model from the folder that transformers wrote."""
    folder = tmp_path_factory.mktemp("gpt2")
    theirs.save_pretrained(folder)
    TOKENIZER.save(folder / "tokenizer.json")
    return zoo.load_pretrained(folder)


def fifty() -> list[Tensor]:
    """50 prompts of 1 to 20 tokens, of which none ends a text."""
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(1, 21, (50,), generator=generator).tolist()
    return [torch.randint(2, TOKENIZER.vocab_size, (length,), generator=generator) for length in lengths]


def test_logits_are_those_of_transformers_both_ways(theirs: Any, ours: Any, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tokens = torch.randint(0, TOKENIZER.vocab_size, (4, 64))
    with torch.no_grad():
        expected = theirs(tokens).logits
        bound = 1e-5 * float(expected.abs().max().clamp_min(1))
        assert float((ours(tokens) - expected).abs().max()) <= bound
        zoo.save_pretrained(ours, tmp_path)
        again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
        assert float((again(tokens).logits - ours(tokens)).abs().max()) <= 1e-5 * float(
            expected.abs().max().clamp_min(1)
        )
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer("abc. h")["input_ids"] == TOKENIZER.encode("abc. h").tolist()


@pytest.mark.slow
def test_the_published_size_both_ways(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config()).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    ours: Any = zoo.load_pretrained(tmp_path / "theirs")
    assert (ours.hparams.num_layers, ours.hparams.hidden_size, ours.spec.vocab_size) == (12, 768, 50_257)
    tokens = torch.randint(50_257, (2, 64))
    with torch.no_grad():
        wanted = theirs(tokens).logits
        torch.testing.assert_close(ours(tokens), wanted, rtol=1e-5, atol=1e-5)
        zoo.save_pretrained(ours, tmp_path / "ours")
        again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours").eval()
        torch.testing.assert_close(again(tokens).logits, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"decoding": "greedy"},
        {"decoding": "greedy", "repetition_penalty": 1.4},
        {"decoding": "beam", "num_beams": 4},
        {"decoding": "beam", "num_beams": 3, "length_penalty": -0.5, "early_stopping": True},
        {
            "decoding": "beam",
            "num_beams": 5,
            "length_penalty": 2.0,
            "early_stopping": "never",
            "repetition_penalty": 1.2,
        },
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_tokens_are_those_of_transformers(theirs: Any, ours: Any, options: dict[str, Any], request: Any) -> None:
    unsaid = ours.unsaid()  # tokens that are part of no text, which theirs is kept from saying, too
    hook = theirs.lm_head.register_forward_hook(lambda head, x, logits: logits.index_fill(-1, unsaid, -torch.inf))
    request.addfinalizer(hook.remove)
    asked = {key: value for key, value in options.items() if key != "decoding"}
    prompts = sorted(fifty(), key=len)
    texts = [TOKENIZER.decode(prompt) for prompt in prompts]
    assert [TOKENIZER.encode(text).tolist() for text in texts] == [prompt.tolist() for prompt in prompts]
    found = iter(ours.generate(texts, 12, **options))
    for length, group in itertools.groupby(prompts, key=len):  # which need no padding there
        batch = torch.stack(list(group))
        expected = theirs.generate(
            batch, attention_mask=torch.ones_like(batch), max_new_tokens=12, do_sample=False, pad_token_id=0, **asked
        )
        for row in expected.tolist():
            new = row[length:]
            new = new[: new.index(0)] if 0 in new else new  # the end, and padding behind it
            assert next(found) == TOKENIZER.decode([*row[:length], *new])


def test_tokens_are_drawn_from_the_distribution_of_transformers(theirs: Any, ours: Any) -> None:
    transformers = pytest.importorskip("transformers")
    from zoo.text import filter_logits

    options = {"temperature": 0.7, "top_k": 7, "top_p": 0.8, "min_p": 0.05}
    for prompt in fifty():
        kept = transformers.LogitsProcessorList([
            transformers.TemperatureLogitsWarper(0.7), transformers.TopKLogitsWarper(7),
            transformers.TopPLogitsWarper(0.8), transformers.MinPLogitsWarper(0.05),
        ])  # fmt: skip
        with torch.no_grad():
            expected = kept(prompt[None], theirs(prompt[None]).logits[:, -1])
            found = filter_logits(ours(prompt[None])[:, -1], **options)
        assert torch.equal(found == -torch.inf, expected == -torch.inf)
        torch.testing.assert_close(found.softmax(-1), expected.softmax(-1), rtol=1e-4, atol=1e-6)
