"""Word2Vec against the formulas in NumPy, pair by pair, and what its parts promise."""

from __future__ import annotations

import copy
import itertools
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import Held, bits, checkpoint_bits, run_command
from torch import Tensor

import zoo
from zoo.data.spec import Batch, DataSpec
from zoo.models.word_vectors.descent import descend
from zoo.models.word_vectors.huffman import huffman_tree
from zoo.models.word_vectors.noise import draw_words, noise_table, spread_words
from zoo.models.word_vectors.phrases import find_phrases, join_phrases
from zoo.models.word_vectors.prediction import Prediction, gradients, hierarchical, losses, negative_sampling
from zoo.models.word_vectors.subwords import bags_of, n_gram_buckets
from zoo.models.word_vectors.windows import Blocks, draw_windows, expected_blocks, keep_probability

V, D, K = 12, 5, 3
COUNTS = torch.tensor([9, 1, 4, 4, 7, 2, 0, 3, 3, 1, 8, 5])
VARIANTS = list(itertools.product([False, True], [False, True]))  # hierarchical, cbow


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


@pytest.fixture
def blocks() -> Blocks:
    generator = torch.Generator().manual_seed(4)
    tokens = torch.randint(V, (3, 30), generator=generator)
    return draw_windows(tokens, torch.full((3, 30), 0.8), 3, generator).blocks(torch.float64)


def predicted(blocks: Blocks, tree: bool, cbow: bool) -> tuple[Prediction, Tensor]:
    drawn = draw_words(noise_table(COUNTS, 0.75), len(blocks.centre), 4, generator=torch.Generator().manual_seed(1))
    if tree:
        return hierarchical(blocks, huffman_tree(COUNTS + 1), cbow), drawn
    return negative_sampling(blocks, drawn, K, cbow), drawn


def direct(blocks: Blocks, drawn: Tensor, v: Any, u: Any, tree: bool, cbow: bool) -> tuple[float, Any, Any, int]:
    """The loss and its gradients by the formulas, one pair after the other; and the number of pairs."""
    paths = huffman_tree(COUNTS + 1)
    loss, grad_v, grad_u, count = 0.0, np.zeros_like(v), np.zeros_like(u), 0

    def regress(h: Any, row: int, truth: float, weight: float) -> Any:
        """Add one logistic regression of h on a row of u; return its gradient of h."""
        nonlocal loss
        score = h @ u[row]
        p = sigmoid(score)
        loss += weight * np.logaddexp(0, -score if truth else score)
        grad_u[row] += weight * (p - truth) * h
        return weight * (p - truth) * u[row]

    def word(h: Any, target: int, negatives: Tensor) -> Any:
        if tree:
            steps = int(paths.on_path[target].sum())
            return sum(regress(h, int(paths.nodes[target, i]), float(paths.left[target, i]), 1.0) for i in range(steps))
        noise = sum(regress(h, int(n), 0.0, K / len(negatives)) for n in negatives)
        return regress(h, target, 1.0, 1.0) + noise

    for centre, halo, band, negatives in zip(blocks.centre, blocks.halo, blocks.band, drawn, strict=True):
        for i, c in enumerate(centre.tolist()):
            window = halo[band[i] > 0].tolist()
            if cbow and window:
                grad_h = word(np.mean([v[o] for o in window], axis=0), c, negatives)
                for o in window:
                    grad_v[o] += grad_h / len(window)
                count += 1
            elif not cbow:
                for o in window:
                    grad_v[c] += word(v[c], o, negatives)
                    count += 1
    return float(loss), grad_v, grad_u, count


@pytest.mark.parametrize(("tree", "cbow"), VARIANTS)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 8.0])
def test_losses_and_gradients_are_those_of_the_formulas(blocks: Blocks, tree: bool, cbow: bool, scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    v, u = (torch.randn(V, D, dtype=torch.float64, generator=generator) * scale**0.5 for _ in range(2))
    prediction, drawn = predicted(blocks, tree, cbow)
    inputs, outputs = prediction.inputs, prediction.outputs
    found = gradients(v[inputs], u[outputs], prediction)
    grad_v = torch.zeros_like(v).index_add_(0, inputs.flatten(), found.inputs.flatten(0, 1))
    grad_u = torch.zeros_like(u).index_add_(0, outputs.flatten(), found.outputs.flatten(0, 1))
    loss, of_v, of_u, count = direct(blocks, drawn, v.numpy(), u.numpy(), tree, cbow)
    assert count > 50
    assert float(prediction.predicted.sum()) == count
    assert float(found.loss.sum()) == pytest.approx(loss, rel=1e-10)
    np.testing.assert_allclose(grad_v, of_v, rtol=1e-10, atol=1e-10 * np.abs(of_v).max())
    np.testing.assert_allclose(grad_u, of_u, rtol=1e-10, atol=1e-10 * np.abs(of_u).max())


@pytest.mark.parametrize(("tree", "cbow"), VARIANTS)
def test_gradients_are_those_of_autograd(blocks: Blocks, tree: bool, cbow: bool) -> None:
    v, u = (torch.randn(V, D, dtype=torch.float64, requires_grad=True) for _ in range(2))
    prediction, _ = predicted(blocks, tree, cbow)
    vectors, contexts = v[prediction.inputs], u[prediction.outputs]
    of_vectors, of_contexts = torch.autograd.grad(losses(vectors, contexts, prediction).sum(), (vectors, contexts))
    with torch.no_grad():
        found = gradients(vectors, contexts, prediction)
    torch.testing.assert_close(found.inputs, of_vectors, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found.outputs, of_contexts, rtol=1e-10, atol=1e-12)


def test_huge_scores_of_either_sign_give_finite_losses_and_gradients() -> None:
    one = torch.ones(1, 1, 1)
    for score in (-3e4, 3e4):
        for truth in (0.0, 1.0):
            pair = Prediction(torch.zeros(1, 1).long(), None, torch.zeros(1, 1).long(), truth * one, one, torch.ones(1))
            found = gradients(score * one, one.clone(), pair)
            wrong = (score > 0) != bool(truth)
            assert float(found.loss) == (abs(score) if wrong else 0.0)
            assert bool(torch.isfinite(found.inputs).all())


# -- a whole step ----------------------------------------------------------------------------------------------------


def model_of(spec: DataSpec | None = None, **options: Any) -> Any:
    torch.manual_seed(0)
    spec = spec or DataSpec("tokens", (30,), vocab_size=V)
    options = {"embedding_size": D, "window": 3, "shared_negatives": 4, "negatives": K, **options}
    return zoo.create_model("word2vec", spec=spec, **options)


@pytest.mark.parametrize("method", ["negative_sampling", "hierarchical_softmax"])
@pytest.mark.parametrize("architecture", ["skip_gram", "cbow"])
@pytest.mark.parametrize("ngrams", [None, [1, 2]])
def test_a_step_is_the_rate_times_the_gradient_of_the_sum(
    method: str, architecture: str, ngrams: list[int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Autograd through the whole model gives the same change of both tables."""
    model = model_of(
        method=method, architecture=architecture, ngrams=ngrams, num_buckets=7, step_bound=1e12, subsample=0.0
    ).double()
    model.counts = COUNTS + 1
    model._vocabulary = None
    with torch.no_grad():
        model.context.normal_()
        model.embedding.normal_()
    seen: list[Prediction] = []
    predict = model._prediction
    monkeypatch.setattr(model, "_prediction", lambda *parts: seen.append(predict(*parts)) or seen[-1])
    before = [table.detach().clone() for table in (model.embedding, model.context)]
    tokens = torch.randint(V, (3, 30))
    loss, count = model.descend(Batch(tokens=tokens), 0.1)
    after = [table.detach().clone() for table in (model.embedding, model.context)]
    (prediction,) = seen
    with torch.no_grad():
        model.embedding.copy_(before[0])
        model.context.copy_(before[1])
    total = losses(*model._look_up(prediction), prediction).sum()
    assert float(loss) == pytest.approx(total.item() / count, rel=1e-12)
    steps = torch.autograd.grad(total, (model.embedding, model.context))
    for old, new, gradient in zip(before, after, steps, strict=True):
        torch.testing.assert_close(new, old - 0.1 * gradient, rtol=1e-10, atol=1e-12)
        assert not torch.equal(new, old)


def test_the_step_of_a_row_is_bounded_by_its_curvature() -> None:
    table = torch.zeros(3, 2)
    rows = torch.tensor([0, 0, 0, 0, 2])
    descend(table, rows, torch.ones(5, 2), torch.full((5,), 2.0), 0.5, 2.0)
    assert table.tolist() == [[-1.0, -1.0], [0.0, 0.0], [-0.5, -0.5]]  # 2 / 8 of 4 gradients, and 0.5 of one


@pytest.mark.parametrize(("tree", "cbow"), VARIANTS)
def test_no_second_derivative_is_above_the_curvature(blocks: Blocks, tree: bool, cbow: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    v, u = (torch.randn(V, D, dtype=torch.float64, generator=generator) for _ in range(2))
    prediction, _ = predicted(Blocks(*(part[:1] for part in blocks)), tree, cbow)
    vectors, contexts = v[prediction.inputs], u[prediction.outputs]
    found = gradients(vectors, contexts, prediction)
    for place, curvature in enumerate((found.input_curvature, found.output_curvature)):
        for row in (0, 3, 11):

            def loss(x: Tensor, row: int = row, place: int = place) -> Tensor:
                parts = [vectors.clone(), contexts.clone()]
                parts[place][0, row] = x
                return losses(*parts, prediction).sum()

            hessian = torch.autograd.functional.hessian(loss, (vectors, contexts)[place][0, row])
            assert float(torch.linalg.eigvalsh(hessian).max()) <= float(curvature[0, row]) + 1e-9


# -- windows ---------------------------------------------------------------------------------------------------------


def pairs_of(blocks: Blocks) -> list[tuple[int, int]]:
    return [(int(blocks.centre[n, i]), int(blocks.halo[n, j])) for n, i, j in blocks.band.nonzero().tolist()]


def test_windows_hold_the_neighbours_that_are_left_and_reach_into_no_other_text() -> None:
    tokens = torch.arange(200).view(4, 50)
    keep = torch.ones(4, 50)
    keep[:, ::7] = 0
    blocks = draw_windows(tokens, keep, 4, torch.Generator().manual_seed(0)).blocks()
    left = [[t for t in row if t % 50 % 7] for row in tokens.tolist()]
    place = {t: (row, i) for row, words in enumerate(left) for i, t in enumerate(words)}
    reach: dict[int, set[int]] = {}
    for centre, other in pairs_of(blocks):
        (row, i), (also, j) = place[centre], place[other]
        assert row == also
        assert 0 < abs(i - j) <= 4
        reach.setdefault(centre, set()).add(j - i)
    assert set(reach) == set(place)
    for centre, offsets in reach.items():  # a window is whole: b words on each side, as far as there are any
        row, i = place[centre]
        size = max(map(abs, offsets))
        assert offsets == {d for d in range(-size, size + 1) if d and 0 <= i + d < len(left[row])}


def test_a_word_at_distance_d_is_met_with_its_probability_and_expected_blocks_say_it() -> None:
    tokens, keep = torch.arange(40)[None], torch.ones(1, 40, dtype=torch.float64)
    expected = torch.zeros(40, 40, dtype=torch.float64)
    blocks = expected_blocks(tokens, keep, 5)
    for n, i, j in blocks.band.nonzero().tolist():
        expected[blocks.centre[n, i], blocks.halo[n, j]] = blocks.band[n, i, j]
    assert expected[10, 11:17].tolist() == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2, 0.0])
    assert torch.equal(expected, expected.T)
    met = torch.zeros_like(expected)
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        for centre, other in pairs_of(draw_windows(tokens, keep, 5, generator).blocks()):
            met[centre, other] += 1 / 200
    assert float((met - expected).abs().max()) < 0.18  # 5 standard deviations of 200 draws


def test_the_probability_of_staying_is_that_of_the_tool() -> None:
    counts = torch.tensor([0, 1000, 100_000, 5])
    total, t = 101_005, 1e-3
    theirs = [0.0] + [min(1.0, (np.sqrt(n / (t * total)) + 1) * (t * total) / n) for n in (1000, 100_000, 5)]
    assert keep_probability(counts, t).tolist() == pytest.approx(theirs, rel=1e-12)
    assert keep_probability(counts, 0.0).tolist() == [0, 1, 1, 1]


def test_words_are_drawn_as_often_as_their_power_says() -> None:
    noise = noise_table(COUNTS, 0.75)
    share = COUNTS.double().pow(0.75) / COUNTS.double().pow(0.75).sum()
    drawn = torch.bincount(
        draw_words(noise, 200, 100, generator=torch.Generator().manual_seed(0)).flatten(), minlength=V
    )
    assert int(drawn[6]) == 0
    assert float((drawn / 20_000 - share).abs().max()) < 0.012
    spread = torch.bincount(spread_words(noise, 20_000), minlength=V) / 20_000
    assert float((spread - share).abs().max()) <= 1 / 20_000 + 2e-6


# -- the hierarchical softmax ----------------------------------------------------------------------------------------


def shortest(counts: list[int]) -> int:
    """The least sum of counts times bits, by a heap."""
    import heapq

    heap, total = sorted(c for c in counts if c), 0
    while len(heap) > 1:
        joined = heapq.heappop(heap) + heapq.heappop(heap)
        total += joined
        heapq.heappush(heap, joined)
    return total


@pytest.mark.parametrize("counts", [[5], [0, 3], [1, 1], [1, 2, 4, 8, 16], [3] * 9, COUNTS.tolist()])
def test_the_tree_is_the_shortest_and_its_probabilities_sum_to_1(counts: list[int]) -> None:
    tree = huffman_tree(torch.tensor(counts))
    assert int((tree.on_path.sum(1) * torch.tensor(counts)).sum()) == shortest(counts)
    h, u = torch.randn(D, dtype=torch.float64), torch.randn(len(counts), D, dtype=torch.float64)
    scores = u[tree.nodes] @ h
    sign = torch.where(tree.left, 1.0, -1.0).double()
    logs = (torch.nn.functional.logsigmoid(sign * scores) * tree.on_path).sum(1)
    assert float(logs.exp()[torch.tensor(counts) > 0].sum()) == pytest.approx(1.0, rel=1e-12)
    assert int(tree.nodes.max()) < max(1, sum(c > 0 for c in counts) - 1) if tree.nodes.numel() else True


# -- n-grams ---------------------------------------------------------------------------------------------------------


def fnv(text: str) -> int:
    """fastText's hash, byte by byte."""
    value = 2_166_136_261
    for byte in text.encode():
        value = ((value ^ (byte if byte < 128 else byte | 0xFFFFFF00)) * 16_777_619) % 2**32
    return value


@pytest.mark.parametrize("lengths", [(1, 2), (3, 6), (4, 4)])
def test_n_grams_and_their_buckets_are_those_of_fasttext(lengths: tuple[int, int]) -> None:
    words = ["where", "", "a", "naïve", "日本語", "😀x", "it"]
    assert fnv("foobar") == 0xBF9CF968  # published with the hash
    expected = []
    for number, word in enumerate(words):
        marked = f"<{word}>" if word else ""
        for size in range(lengths[0], lengths[1] + 1):
            grams = [marked[i : i + size] for i in range(len(marked) - size + 1)]
            expected += [(number, fnv(g) % 1000) for g in grams if g not in ("<", ">")]
    buckets, owner = n_gram_buckets(words, *lengths, 1000)
    assert sorted(zip(owner.tolist(), buckets.tolist(), strict=True)) == sorted(expected)
    bags = bags_of(words, *lengths, 1000)
    table = torch.randn(1007, D, dtype=torch.float64)
    for number in range(7):
        rows = [number, *(7 + b for n, b in expected if n == number)]
        torch.testing.assert_close(bags.mean(table)[number], table[rows].mean(0), rtol=1e-12, atol=1e-12)
    some = bags.of(torch.tensor([4, 1, 4]))
    torch.testing.assert_close(some.mean(table), bags.mean(table)[[4, 1, 4]], rtol=1e-12, atol=1e-12)


def test_the_hash_is_gensims() -> None:
    inner = pytest.importorskip("gensim.models.fasttext_inner", reason="gensim is not installed")
    for word in ("where", "naïve", "日本"):
        theirs = inner.compute_ngrams_bytes(word, 3, 5)
        buckets, _ = n_gram_buckets([word], 3, 5, 2_000_000)
        assert sorted(buckets.tolist()) == sorted(inner.ft_hash_bytes(gram) % 2_000_000 for gram in theirs)


# -- phrases ---------------------------------------------------------------------------------------------------------


def test_phrases_are_the_pairs_above_the_threshold_and_are_joined_from_left_to_right() -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(6, (5, 80), generator=generator)
    tokens[:, 10::20], tokens[:, 11::20] = 6, 7
    words = tokens != 3
    counts = torch.bincount(tokens[words], minlength=8)
    phrases, met = find_phrases([(tokens[:2], words[:2]), (tokens[2:], words[2:])], counts, 2.5, 4)
    pairs = [
        (a, b) for row, kept in zip(tokens.tolist(), words.tolist(), strict=True)
        for a, b, k, j in zip(row, row[1:], kept, kept[1:], strict=False) if k and j
    ]  # fmt: skip
    n = int(counts.sum())
    expected = {
        pair: pairs.count(pair) for pair in set(pairs)
        if (pairs.count(pair) - 4) * n / (counts[pair[0]] * counts[pair[1]]) > 2.5
    }  # fmt: skip
    assert (6, 7) in expected
    assert dict(zip(map(tuple, phrases.tolist()), met.tolist(), strict=True)) == expected
    joined, left = join_phrases(torch.tensor([[6, 7, 6, 7, 1], [1, 1, 1, 1, 2]]), torch.ones(2, 5).bool(),
                                torch.tensor([[6, 7], [1, 1], [7, 6]]), 8)  # fmt: skip
    assert [row[kept].tolist() for row, kept in zip(joined, left, strict=True)] == [[8, 8, 1], [9, 9, 2]]


# -- the model -------------------------------------------------------------------------------------------------------


def text_batch(rows: int = 12, steps: int = 40, seed: int = 0) -> Batch:
    """Words 0–5 beside each other, and 6–11 beside each other."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(6, (rows, steps), generator=generator)
    tokens[rows // 2 :] += 6
    return Batch(tokens=tokens)


def fitted(batch: Batch, epochs: int = 20, batch_size: int = 4, lr: float = 0.1, **options: Any) -> Any:
    options = {"embedding_size": 8, "window": 3, "subsample": 0.0, "blocks_per_step": 2, **options}
    model = zoo.create_model("word2vec", **options)
    held = Held(DataSpec("tokens", (batch.tokens.shape[1],), vocab_size=V), batch, batch_size)
    return zoo.fit(model, held, max_epochs=epochs, device="cpu", lr=lr)


@pytest.mark.parametrize("method", ["negative_sampling", "hierarchical_softmax"])
@pytest.mark.parametrize("architecture", ["skip_gram", "cbow"])
def test_words_of_the_same_texts_come_near_each_other(method: str, architecture: str) -> None:
    model = fitted(text_batch(), method=method, architecture=architecture)
    found = torch.nn.functional.normalize(model.vectors.detach(), dim=1)
    cosines = found @ found.T
    apart = float(cosines[:6, 6:].mean())
    together = float((cosines[:6, :6].sum() - 6) / 30)
    assert together > apart + 0.5


def test_the_logged_loss_is_the_mean_over_all_pairs() -> None:
    """At the start, where all scores are near 0, it is (1 + K) ln 2, and for the tree the mean number of bits."""
    for options, loss in (({"negatives": 4}, 5 * np.log(2)), ({"architecture": "cbow", "negatives": 2}, 3 * np.log(2))):
        model = fitted(text_batch(), epochs=1, batch_size=12, lr=1e-3, **options)
        assert float(model.trainer.callback_metrics["train/loss"]) == pytest.approx(loss, rel=0.01)
    model = model_of(negatives=K)
    batch = text_batch(3, 30)
    output = model.output(batch)
    assert output[:, 0].tolist() == pytest.approx([4 * np.log(2)] * 3, rel=0.01)
    assert output[:, 1].tolist() == pytest.approx(model.row_weight(batch).tolist(), rel=1e-6)


def test_the_expected_loss_is_that_of_many_draws() -> None:
    model = model_of(shared_negatives=64)
    with torch.no_grad():
        model.embedding.normal_()
        model.context.normal_()
    batch = text_batch(2, 300)
    tables = [t.detach().clone() for t in (model.embedding, model.context)]
    drawn = [model.descend(batch, 0.0) for _ in range(20)]
    mean = sum(float(loss) * count for loss, count in drawn) / sum(count for _, count in drawn)
    loss, weight = model.output(batch).detach().double().unbind(1)
    assert mean == pytest.approx(float((loss * weight).sum() / weight.sum()), rel=0.02)
    assert torch.equal(model.embedding, tables[0])
    assert torch.equal(model.context, tables[1])


def test_padding_and_special_tokens_are_no_words() -> None:
    model, batch = model_of(), text_batch(4, 30)
    padded = torch.cat([batch.tokens, torch.full((4, 9), 7)], 1)
    mask = torch.arange(39).expand(4, -1) < 30
    with torch.no_grad():
        model.context.normal_()
        ours, theirs = model.output(batch), model.output(Batch(tokens=padded, mask=mask))
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def test_the_same_seed_gives_the_same_bits_and_another_one_others() -> None:
    batch = text_batch()
    held = Held(DataSpec("tokens", (40,), vocab_size=V), batch, 4)
    states = []
    for seed in (0, 0, 1):
        model = zoo.fit(zoo.create_model("word2vec", embedding_size=4), held, max_epochs=2, device="cpu", seed=seed)
        states.append(bits(model.state_dict()))
    assert states[0] == states[1] != states[2]


def test_two_processes_add_up_their_steps_and_take_the_mean_of_rows_that_both_moved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each beside what it alone would have learned of its texts."""
    before = fitted(text_batch(), epochs=1)
    texts = [torch.tensor([[0, 1, 2, 3] * 5]), torch.tensor([[2, 3, 4, 5] * 5])]
    models, alone = [], []
    for rank, tokens in enumerate(texts):
        model = copy.deepcopy(before)
        torch.manual_seed(rank)
        model.descend(Batch(tokens=tokens), 0.1)
        models.append(model)
        alone.append([table.detach().clone() for table in (model.embedding, model.context)])
    start = [before.embedding.detach(), before.context.detach()]
    barrier, sent = threading.Barrier(2), [torch.zeros(0)] * 2

    def all_reduce(tensor: Tensor) -> None:
        sent[int(threading.current_thread().name)] = tensor.clone()
        barrier.wait()
        tensor.copy_(sent[0] + sent[1])
        barrier.wait()

    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    join = [threading.Thread(target=m._join_steps, args=(start,), name=str(r)) for r, m in enumerate(models)]
    for thread in join:
        thread.start()
    for thread in join:
        thread.join()
    for number, old in enumerate(start):
        steps = torch.stack([tables[number] - old for tables in alone])  # (2, V, D)
        moved = (steps != 0).any(2).sum(0)
        assert {0, 1, 2} <= {*moved.tolist()} or number  # the context has drawn words, too
        expected = old + steps.sum(0) / moved.clamp_min(1).unsqueeze(1)
        for model in models:
            torch.testing.assert_close((model.embedding, model.context)[number].detach(), expected, rtol=0, atol=1e-7)


def test_a_second_fit_counts_anew() -> None:
    first, second = text_batch(seed=1), text_batch(rows=4, seed=2)
    model = fitted(first, epochs=1)
    held = Held(DataSpec("tokens", (40,), vocab_size=V), second, 4)
    zoo.fit(model, held, max_epochs=1, device="cpu")
    assert model.counts.tolist() == torch.bincount(second.tokens.flatten(), minlength=V).tolist()


def test_huge_rates_and_long_windows_stay_finite() -> None:
    """A step is bounded: words that occur in every window do not run away."""
    batch = Batch(tokens=torch.randint(3, (20, 400), generator=torch.Generator().manual_seed(0)))
    model = fitted(batch, epochs=3, batch_size=20, blocks_per_step=256)
    assert bool(torch.isfinite(model.vectors).all())
    assert float(model.vectors.norm(dim=1).max()) < 100


def test_a_loss_that_is_not_finite_stops_before_the_step() -> None:
    model = model_of()
    with torch.no_grad():
        model.context.fill_(float("inf"))
    before = model.embedding.detach().clone()
    with pytest.raises(zoo.ZooError, match="no update was made"):
        model.descend(text_batch(), 0.1)
    assert torch.equal(model.embedding, before)


@pytest.mark.parametrize("method", ["negative_sampling", "hierarchical_softmax"])
@pytest.mark.parametrize("architecture", ["skip_gram", "cbow"])
def test_a_vocabulary_of_one_word(method: str, architecture: str) -> None:
    model = zoo.create_model("word2vec", embedding_size=3, method=method, architecture=architecture)
    held = Held(DataSpec("tokens", (20,), vocab_size=1), Batch(tokens=torch.zeros(4, 20).long()), 4)
    zoo.fit(model, held, max_epochs=1, device="cpu")
    assert model.vectors.shape == (1, 3)
    assert bool(torch.isfinite(model.vectors).all())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ngrams": [3]}, "model.ngrams must be two lengths"),
        ({"ngrams": [4, 3]}, "model.ngrams must be two lengths"),
        ({"window": 0}, "model.window must be at least 1"),
        ({"subsample": -1.0}, "model.subsample must be at least 0"),
        ({"method": "softmax"}, "negative_sampling, hierarchical_softmax"),
    ],
)
def test_bad_hyperparameters_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(zoo.ZooError, match=message):
        zoo.create_model("word2vec", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "adam"}, "leave optimizer=adam out"),
        ({"optimizer": "sgd", "optimizer_options": {"lr": 0.1, "momentum": 0.9}}, "leave optimizer.momentum out"),
    ],
)
def test_an_optimizer_that_it_cannot_use_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(zoo.ZooError, match=message):
        zoo.fit(zoo.create_model("word2vec"), [[1, 2, 3]] * 4, **options)


def test_a_text_without_a_word_says_so() -> None:
    spec = DataSpec("tokens", (3,), vocab_size=2, tokenizer=zoo.text.Tokenizer.train(["a b"], "word", 2).to_json())
    held = Held(spec, Batch(tokens=torch.zeros(4, 3).long()), 4)
    with pytest.raises(zoo.ZooError, match="no word of the vocabulary"):
        zoo.fit(zoo.create_model("word2vec"), held, max_epochs=1, device="cpu")


# -- from the command line -------------------------------------------------------------------------------------------

STORY = "the new york cat sat on the mat and the old dog ran in new york . " * 120


def test_a_run_from_a_file_keeps_phrases_and_n_grams_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("story.txt").write_text(STORY)
    tiny = ["model=word2vec", "data=text_file", "data.path=story.txt", "data.sequence_length=60", "data.batch_size=2",
            "model.embedding_size=6", "model.shared_negatives=8", "model.phrase_threshold=5", "model.ngrams=[3,4]",
            "model.num_buckets=50", "trainer.max_epochs=2", "trainer.accelerator=cpu"]  # fmt: skip
    assert run_command([*tiny, "run_dir=whole"]) == 0, capsys.readouterr().err
    model = zoo.load_model("whole")
    assert "new_york" in model.word_vectors.words
    assert len(model.vectors) == len(model.counts) == model.spec.vocab_size + len(model.phrases)
    assert model.vector("catlike").shape == (6,)
    assert torch.equal(model.vector("cat"), model.vectors[model.spellings.index("cat")])


RESUMED = ["model=word2vec", "data=python_docs", "data.val_fraction=0.3", "model.embedding_size=4", "model.window=2",
           "trainer.max_epochs=2", "trainer.accelerator=cpu", "data.batch_size=4", "logger=[]"]  # fmt: skip


def test_a_run_that_was_broken_off_ends_in_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of an epoch: weights, draws, counts and the rate go on where they were."""
    from zoo.training.callbacks import SignalExit

    monkeypatch.chdir(tmp_path)
    assert run_command([*RESUMED, "run_dir=whole"]) == 0
    obey = SignalExit.on_train_batch_end

    def at_third(self: Any, trainer: Any, model: Any, *args: Any) -> None:
        self.received = signal.SIGTERM if trainer.global_step == 3 else self.received
        obey(self, trainer, model, *args)

    with monkeypatch.context() as patch:
        patch.setattr(SignalExit, "on_train_batch_end", at_third)
        assert run_command([*RESUMED, "run_dir=parts"]) == 143
    assert run_command([*RESUMED, "run_dir=parts"]) == 0
    ends = [checkpoint_bits(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("whole", "parts")]
    assert ends[0] == ends[1]
