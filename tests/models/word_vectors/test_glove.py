"""GloVe's table, loss and gradients beside sums that are written out in NumPy, and what a fit of it promises."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import CPU, checkpoint_bits, run_command
from torch import Tensor

import zoo
from zoo.data.spec import Batch, DataSpec
from zoo.models.word_vectors import cooccurrence
from zoo.models.word_vectors.cooccurrence import CooccurrenceTable, Entries, cooccurrences, unit_of_counts
from zoo.models.word_vectors.glove import GloVe, glove_gradients
from zoo.text import Tokenizer, WordVectors
from zoo.training.checkpoint import load_model

V = 7


def counted(texts: list[list[int]], window: int, symmetric: bool) -> np.ndarray:
    """X by the definition: a word, and each before it within the window."""
    table = np.zeros((V, V))
    for text in texts:
        for t, word in enumerate(text):
            for distance in range(1, min(window, t) + 1):
                table[text[t - distance], word] += 1 / distance
                if symmetric:
                    table[word, text[t - distance]] += 1 / distance
    return table


def dense(i: Tensor, j: Tensor, x: Tensor) -> np.ndarray:
    table = np.zeros((V, V))
    np.add.at(table, (i.numpy(), j.numpy()), x.numpy())
    return table


def some_texts(count: int = 12, longest: int = 30) -> list[list[int]]:
    draw = torch.Generator().manual_seed(3)
    lengths = torch.randint(longest, (count,), generator=draw).tolist()
    return [torch.randint(V, (length,), generator=draw).tolist() for length in lengths]


def padded(texts: list[list[int]]) -> Batch:
    rows = [torch.tensor(text, dtype=torch.long) for text in texts]
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones(len(r), dtype=torch.bool) for r in rows], batch_first=True)
    return Batch(tokens=torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=V - 1), mask=mask)


def model(spec: DataSpec | None = None, **options: Any) -> GloVe:
    options = {"embedding_size": 3, "num_epochs": 2, "entries_per_step": 10, "window": 3, **options}
    spec = spec or DataSpec("tokens", (30,), "tokens", vocab_size=V, dtype="float64")
    return zoo.create_model("glove", spec, **options)  # type: ignore[return-value]


# -- the table -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("window", [1, 4, 40])
def test_the_table_is_that_of_the_definition(window: int, symmetric: bool) -> None:
    texts = some_texts()
    glove = model(window=window, symmetric=symmetric)
    glove.accumulate(padded(texts[:5]))
    glove.accumulate(padded(texts[5:]))
    glove._state()
    glove.keys, glove.counts = glove.met_keys, glove.met_counts
    found = dense(*glove._entries(slice(None)))
    np.testing.assert_allclose(found, counted(texts, window, symmetric), rtol=1e-12 if window <= 22 else 1e-7, atol=0)


def test_words_that_are_none_part_no_others_and_an_end_parts_texts() -> None:
    tokenizer = Tokenizer.train(["a b c d e"], "word", special_tokens=["pad", "unknown", "end"])
    assert tokenizer.vocab_size == V + 1
    spec = DataSpec("tokens", (9,), "tokens", vocab_size=V + 1, tokenizer=tokenizer.to_json(), dtype="float64")
    glove = model(spec, window=2)
    pad, unknown, end = 0, 1, 2
    glove.accumulate(Batch(tokens=torch.tensor([[3, unknown, 4, pad, 5, end, 6, 7, unknown]])))
    glove._state()
    met = zip(glove.met_keys.tolist(), glove.met_counts.tolist(), strict=True)
    pairs = {divmod(key, V + 1): count for key, count in met}
    assert pairs == {(3, 4): 2, (4, 5): 2, (3, 5): 1, (6, 7): 2}
    assert glove.word_vectors.words == ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize("window", [1, 5, 22])
def test_every_distance_is_a_whole_number_of_units(window: int) -> None:
    assert all(unit_of_counts(window) % distance == 0 for distance in range(1, window + 1))
    assert unit_of_counts(window) < 2**28


def entries_of(count: int, most: int, seed: int) -> Entries:
    draw = torch.Generator().manual_seed(seed)
    return Entries(*(torch.randint(1, most, (count,), generator=draw) for _ in range(2)))


@pytest.mark.parametrize("share", [2.0, 0.5, 0.05])
def test_a_table_on_disk_is_the_one_in_memory(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """With half of the table in memory, or a twentieth, it is the same to the bit, however it is filled."""
    monkeypatch.setattr(cooccurrence, "_LEAST", 16)
    parts = [entries_of(100, 1500, seed) for seed in range(20)]
    whole = CooccurrenceTable(1 << 30)
    for part in parts:
        whole.add(part)
    wanted = whole.entries()
    sums: dict[int, int] = {}
    for key, value in zip(*(torch.cat(c).tolist() for c in zip(*parts, strict=True)), strict=True):
        sums[key] = sums.get(key, 0) + value
    assert dict(zip(*(c.tolist() for c in wanted), strict=True)) == sums
    assert whole._folder is None

    limited = CooccurrenceTable(int(16 * share * len(sums)))
    for number, part in enumerate(parts):
        limited.add(part)
        if number == 11:  # a run that is broken off and goes on
            limited = CooccurrenceTable(16 * limited.limit, limited.entries())
        held = limited.num_waiting + len(part.keys)
        assert held <= limited.limit + 100
    assert (limited._folder is not None) == (share < 1)
    for ours, theirs in zip(limited.entries(), wanted, strict=True):
        assert torch.equal(ours, theirs)


def test_an_empty_table() -> None:
    none = torch.zeros(0, dtype=torch.long)
    table = CooccurrenceTable(100)
    assert not len(table.entries().keys)
    table.add(cooccurrences(none, none, V, 5))
    assert not len(table.entries().keys)
    with pytest.raises(zoo.ZooError, match="No two known words stand near each other"):
        zoo.fit(zoo.create_model("glove"), [[3], [2]], [0, 1], device="cpu")


# -- loss and gradients ----------------------------------------------------------------------------------------------


def by_numpy(words: Any, contexts: Any, i: Any, j: Any, x: Any, x_max: float, alpha: float) -> tuple[Any, Any, Any]:
    """J and its gradients, entry by entry."""
    loss, by_words, by_contexts = 0.0, np.zeros_like(words), np.zeros_like(contexts)
    for a, b, count in zip(i, j, x, strict=True):
        weight = (count / x_max) ** alpha if count < x_max else 1.0
        error = words[a, :-1] @ contexts[b, :-1] + words[a, -1] + contexts[b, -1] - math.log(count)
        loss += weight * error**2
        by_words[a, :-1] += 2 * weight * error * contexts[b, :-1]
        by_contexts[b, :-1] += 2 * weight * error * words[a, :-1]
        by_words[a, -1] += 2 * weight * error
        by_contexts[b, -1] += 2 * weight * error
    return loss, by_words, by_contexts


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("size", [0, 1, 50])
def test_loss_and_gradients_are_those_of_the_formula(size: int, dtype: torch.dtype) -> None:
    words, contexts = torch.randn(V, 5, dtype=dtype), torch.randn(5, V, dtype=dtype).T  # one of them strided
    i, j = torch.randint(V - 1, (2, size))
    x = torch.rand(size, dtype=dtype) * 20 + 1e-3
    found = glove_gradients(words, contexts, i, j, x, x_max=10.0, alpha=0.75)
    arrays = [part.double().numpy() for part in (words, contexts)]
    loss, by_words, by_contexts = by_numpy(*arrays, i.tolist(), j.tolist(), x.tolist(), 10.0, 0.75)
    bound = 1e-10 if dtype == torch.float64 else 2e-5
    assert float(found.loss) == pytest.approx(float(loss), rel=bound)
    for rows, part, wanted in ((found.rows, found.words, by_words), (found.columns, found.contexts, by_contexts)):
        whole = torch.zeros(V, 5, dtype=dtype).index_copy_(0, rows, part)
        np.testing.assert_allclose(whole.numpy(), wanted, rtol=bound, atol=bound * max(1.0, abs(wanted).max()))
        assert len(rows) == len(rows.unique())


def test_steps_are_those_of_adagrad() -> None:
    """torch's own AdaGrad takes the same steps on the gradients that autograd finds."""
    glove = model(entries_per_step=1000)
    glove.accumulate(padded(some_texts()))
    glove._state()
    glove.keys, glove.counts = glove.met_keys, glove.met_counts
    i, j, x = glove._entries(slice(None))
    start = [p.detach().clone().requires_grad_() for p in (glove.words, glove.contexts)]
    optimizer = torch.optim.Adagrad(start, lr=glove.hparams.learning_rate, initial_accumulator_value=1.0, eps=0.0)
    losses = []
    for _ in range(3):
        w, c = start
        error = (w[i, :-1] * c[j, :-1]).sum(1) + w[i, -1] + c[j, -1] - x.log()
        loss = ((x / 10).clamp(max=1) ** 0.75 * error.square()).sum()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert [glove._go_through()[0] for _ in range(3)] == pytest.approx(losses, rel=1e-10)
    for ours, theirs in zip((glove.words, glove.contexts), start, strict=True):
        torch.testing.assert_close(ours.detach(), theirs.detach(), rtol=1e-10, atol=1e-12)


def test_the_metric_is_the_mean_surprise_of_near_words() -> None:
    texts = some_texts()
    glove = model()
    glove.fit_batches(lambda: [padded(texts)])
    found = glove.evaluate(padded(texts))["nll"]
    scores = (glove.words[:, :-1] @ glove.contexts[:, :-1].T + glove.contexts[:, -1]).detach()
    surprise = -scores.log_softmax(1).numpy()
    for text, value in zip(texts, found, strict=True):
        table = counted([text], 3, True)
        wanted = (table * surprise).sum() / table.sum() if table.any() else 0.0
        assert float(value) == pytest.approx(wanted, rel=1e-9)


# -- fits ------------------------------------------------------------------------------------------------------------


def test_a_limit_of_memory_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cooccurrence, "_LEAST", 4)
    batches = [padded(some_texts()[k : k + 3]) for k in range(0, 12, 3)]
    results = []
    for limit in (1 << 30, 16 * 14, 16):  # of 28 entries all, half of them, and one
        glove = model(memory_limit=limit)
        glove.fit_batches(lambda: batches)
        results.append(glove.vectors)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_words_of_the_same_neighbours_become_alike() -> None:
    draw = torch.Generator().manual_seed(0)
    animals, tools = ["cat", "dog"], ["saw", "axe"]
    texts = []
    for number in range(400):
        words, verbs = ((animals, ["eats", "sleeps"]), (tools, ["cuts", "rusts"]))[number % 2]
        one, other = torch.randint(2, (2,), generator=draw).tolist()
        texts.append(f"the {words[one]} {verbs[other]} here")
    tokenizer = Tokenizer.train(texts, "word")
    spec = DataSpec("tokens", (4,), "tokens", vocab_size=tokenizer.vocab_size, tokenizer=tokenizer.to_json())
    glove = zoo.create_model(
        "glove", spec, embedding_size=6, num_epochs=40, entries_per_step=8, window=2, learning_rate=0.05
    )
    glove.fit_batches(lambda: [Batch(tokens=torch.stack([tokenizer.encode(text) for text in texts]))])  # type: ignore[operator]
    assert glove.similarity("cat", "dog") > glove.similarity("cat", "axe") + 0.2
    assert glove.similarity("saw", "axe") > glove.similarity("saw", "dog") + 0.2


def test_a_run_keeps_files_that_gensim_reads_and_goes_on_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("to be or not to be that is the question\n" * 60, encoding="utf-8")
    Path("pairs.txt").write_text("be\tquestion\t3\nto\tbe\t7\nis\tthe\t5\nking\tbe\t5\n", encoding="utf-8")
    Path("questions.txt").write_text(": all of them\nto be is the\nto be king queen\n", encoding="utf-8")
    command = ["model=glove", CPU, "data=text_file", "data.path=text.txt", "data.sequence_length=20", "model.window=3",
               "model.embedding_size=4", "model.num_epochs=4", "data.min_count=1"]  # fmt: skip
    assert run_command([*command, "run_dir=whole"]) == 0, capsys.readouterr().err
    assert run_command([*command, "run_dir=parted", "trainer.max_epochs=2"]) == 0
    assert run_command([*command, "run_dir=parted"]) == 0
    last = Path("checkpoints", "last.ckpt")
    assert checkpoint_bits("parted" / last) == checkpoint_bits("whole" / last)
    glove = load_model("whole")
    assert isinstance(glove, GloVe)
    assert not len(glove.keys)
    words = WordVectors.load("whole")
    assert words.words == glove.word_vectors.words
    assert torch.equal(words.vectors, glove.vectors[1:].detach())
    predicted = glove.predict(["to be", "zebra"])
    torch.testing.assert_close(predicted[0], (words["to"] + words["be"]) / 2)
    assert not predicted[1:].any()  # of no known word
    with pytest.raises(zoo.ZooError, match="Example 0 of X has no step"):
        glove.predict([""])
    capsys.readouterr()

    asked = ["run=whole", "pairs=pairs.txt", "analogies=questions.txt", "near=[to,to - be + is]"]
    assert run_command(asked, "evaluate") == 0
    printed = capsys.readouterr().out
    assert "spearman" in printed
    assert "all of them" in printed
    rows = Path("whole", "evaluation", "pairs.csv").read_text().splitlines()
    assert rows[0] == "file,spearman,pairs,left out"
    assert rows[1].endswith(",3,1")
    assert Path("whole", "evaluation", "analogies.csv").read_text().splitlines()[1].endswith(",1,1")
    assert Path("whole", "neighbours.csv").is_file()
    assert run_command(["run=whole", "near=[kong]"], "evaluate") == 1
    assert capsys.readouterr().err == "error: 'kong' is none of the 8 words.\n"


def test_texts_of_a_table_need_no_option_of_long_texts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The model's config sets the length of windows, which its own data have and a table lacks."""
    monkeypatch.chdir(tmp_path)
    rows = ["text,kind", *(["to be or not to be,a", "that is the question,b"] * 10)]
    Path("texts.csv").write_text("\n".join(rows), encoding="utf-8")
    command = ["model=glove", CPU, "data=csv", "data.path=texts.csv", "data.text=text", "data.target=kind",
               "data.min_count=1", "model.num_epochs=1", "model.embedding_size=2"]  # fmt: skip
    assert run_command([*command, "data.sequence_length=5"]) == 1
    assert "data 'csv' has no option 'sequence_length'" in capsys.readouterr().err
    assert run_command([*command, "run_dir=run"]) == 0, capsys.readouterr().err
    assert "question" in WordVectors.load("run")


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"window": 0}, "model.window must be at least 1"),
        ({"x_max": 0.0}, "model.x_max must be above 0"),
        ({"alpha": -1.0}, "model.alpha must be at least 0"),
        ({"learning_rate": 0.0}, "model.learning_rate must be above 0"),
    ],
)
def test_hyperparameters_out_of_range_are_refused(options: dict[str, Any], line: str) -> None:
    with pytest.raises(zoo.ZooError, match=line):
        zoo.create_model("glove", **options)


def test_a_rate_that_leads_nowhere_is_said() -> None:
    with pytest.raises(zoo.ZooError, match=r"lower model\.learning_rate"):
        model(learning_rate=1e30).float().fit_batches(lambda: [padded(some_texts())])
