"""Texts of a table: padded tokens, bags beside scikit-learn's, and what is learnt of the training rows alone."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

import zoo
from zoo.data import sampler
from zoo.data.sampler import BatchSampler
from zoo.data.text_view import Ragged, n_grams
from zoo.text import Tokenizer

WORDS = ("free call now win cash prize home later see", "home later see you at the bus stop ok lol")


def messages(count: int = 120, seed: int = 0) -> tuple[list[str], list[str]]:
    """Messages of 0 to 9 words; those of one kind take their words from one end of the list."""
    rng = np.random.default_rng(seed)
    texts, kinds = [], []
    for number in range(count):
        kind = number % 2
        words = rng.choice(WORDS[1 - kind].split(), rng.integers(0 if number > 9 else 3, 10))
        texts.append(" ".join(words) + ("?" if number % 3 else ', "NA"\nnew line'))
        kinds.append(("ham", "spam")[kind])
    texts[40:44] = ["NA", "?", "", "nan"]  # values that would be missing in any other column
    return texts, kinds


@pytest.fixture
def file(tmp_path):
    texts, kinds = messages()
    with open(tmp_path / "m.csv", "w", newline="", encoding="utf-8") as target:
        csv.writer(target).writerows([("kind", "text"), *zip(kinds, texts, strict=True)])
    return str(tmp_path / "m.csv")


def create(file: str, **options):
    return zoo.create_data("csv", **{"path": file, "target": "kind", "text": "text", "batch_size": 16, **options})


def all_rows(data, split: str = "train"):
    rows = data.rows(split)
    return rows[torch.arange(len(rows))]


def training_texts(data) -> list[str]:
    """The texts of the training rows in their order, from their tokens' rows in the file."""
    texts = messages()[0]
    return [texts[i] for i in data.rows("train").index.tolist()]


# -- tokens ----------------------------------------------------------------------------------------------------------


def test_texts_become_padded_tokens_with_one_mask(file) -> None:
    data = create(file, tokenizer="bpe", vocab_size=300, special_tokens=["pad", "unknown"])
    batch, tokenizer = all_rows(data), Tokenizer.from_json(data.spec.tokenizer)
    assert batch.mask.dtype == torch.bool
    assert (data.spec.kind, data.spec.num_classes, data.spec.class_names) == ("tokens", 2, ("ham", "spam"))
    for tokens, mask, text in zip(batch.tokens, batch.mask, training_texts(data), strict=True):
        assert (mask.int().diff() <= 0).all()  # what is there comes first
        if text:
            assert tokenizer.decode(tokens[mask]) == text
        else:
            assert tokens[mask].tolist() == [tokenizer.special("unknown")]
    assert not batch.tokens[~batch.mask].any()
    kinds = messages()[1]
    assert [data.spec.class_names[i] for i in batch.y] == [kinds[i] for i in data.rows("train").index.tolist()]


def test_a_batch_is_no_longer_than_its_longest_text(file) -> None:
    data = create(file)
    rows = data.rows("train")
    short = (rows.num_steps <= 4).nonzero().squeeze(1)
    assert rows[short].tokens.shape[1] == max(1, int(rows.num_steps[short].max()))
    assert rows[short[:1]].mask is None


def test_long_texts_are_cut_and_it_is_said(file, caplog) -> None:
    with caplog.at_level("INFO", logger="zoo"):
        data = create(file, max_length=3)
        batch = all_rows(data)
    assert batch.tokens.shape[1] == 3
    long = sum(len(Tokenizer.from_json(data.spec.tokenizer).encode(text)) > 3 for text in messages()[0])
    assert f"{long} texts are longer than data.max_length=3" in caplog.text


@pytest.mark.parametrize("world_size", [1, 2])
def test_batches_are_of_similar_length_and_every_text_comes_once(world_size: int, monkeypatch) -> None:
    monkeypatch.setattr(sampler, "_POOL", 8)
    num_steps = torch.randint(1, 60, (333,), generator=torch.Generator().manual_seed(1))

    def epoch(number: int, **options) -> list[torch.Tensor]:
        samplers = [
            BatchSampler(333, 8, shuffle=True, rank=rank, world_size=world_size, num_steps=num_steps, **options)
            for rank in range(world_size)
        ]
        for one in samplers:
            one.set_epoch(number)
        return [torch.cat(parts) for parts in zip(*samplers, strict=True)]

    first, second = epoch(0), epoch(1)
    for batches in (first, second):
        assert torch.cat(batches).sort().values.tolist() == list(range(333))
        assert {len(batch) for batch in batches[:-1]} == {8 * world_size}
    assert {tuple(batch.sort().values.tolist()) for batch in first}.isdisjoint(
        {tuple(batch.sort().values.tolist()) for batch in second}
    )
    spread = np.mean([num_steps[batch].float().std().item() for batch in first[:-1]])
    assert spread < 0.35 * num_steps.float().std().item()
    means = torch.tensor([num_steps[batch].float().mean() for batch in first[:-1]])
    assert (means.diff() > 0).any()
    assert (means.diff() < 0).any()  # not from short to long
    again = BatchSampler(333, 8 * world_size, shuffle=True, num_steps=num_steps)
    again.skip_batches = 3  # a resumed epoch
    assert [set(b.tolist()) for b in again] == [set(b.tolist()) for b in first[3:]]


# -- bags ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ngrams", [1, 2, 3])
@pytest.mark.parametrize("view", ["counts", "binary", "tfidf"])
def test_bags_are_those_of_scikit_learn(file, view: str, ngrams: int) -> None:
    data = create(file, view=view, ngrams=ngrams)
    tokenizer = Tokenizer.from_json(data.spec.tokenizer)

    def tokens(text: str) -> list[str]:
        return tokenizer.tokenize(text).tokens

    options = {"tokenizer": tokens, "token_pattern": None, "lowercase": False, "ngram_range": (1, ngrams)}
    theirs = (
        TfidfVectorizer(**options) if view == "tfidf" else CountVectorizer(**options, binary=view == "binary")
    ).fit(training_texts(data))
    names = theirs.get_feature_names_out().tolist()
    assert sorted(data.spec.feature_names) == sorted(names)
    assert data.spec.kind == "tabular"
    order = [names.index(name) for name in data.spec.feature_names]
    expected = torch.from_numpy(theirs.transform(training_texts(data)).toarray()[:, order])
    torch.testing.assert_close(all_rows(data).x.to_dense().double(), expected.double(), rtol=1e-6, atol=1e-7)
    new = ["free bus zebra", "", "zebra"]
    ours = data.preprocessing(new, data.spec).x.to_dense()
    torch.testing.assert_close(ours, torch.from_numpy(theirs.transform(new).toarray()[:, order]).float())


def test_hashed_bags_hold_every_n_gram(file) -> None:
    data = create(file, view="counts", ngrams=2, hashed=True, max_features=50)
    x = all_rows(data).x.to_dense()
    assert x.shape[1] == 50
    assert data.spec.feature_names is None
    lengths = data.rows("train").store[data.rows("train").index].lengths
    torch.testing.assert_close(x.sum(1).long(), lengths + (lengths - 1).clamp_min(0))
    assert x.sum(0).gt(0).sum() > 40


SPARSE = [
    ("naive_bayes", {"likelihood": "multinomial"}),
    ("naive_bayes", {"likelihood": "complement"}),
    ("naive_bayes", {"likelihood": "bernoulli"}),
    ("svm", {"method": "dual", "tol": 1e-12, "max_iter": 100_000}),
    ("svm", {"method": "dual", "loss": "hinge", "tol": 1e-12, "max_iter": 100_000}),
    ("decision_tree", {"seed": 0}),
    ("random_forest", {"num_trees": 4, "seed": 0}),
    ("gradient_boosting", {"num_trees": 3, "min_samples_leaf": 2, "seed": 0}),
]


@pytest.mark.parametrize(("name", "hparams"), SPARSE)
def test_sparse_rows_give_what_dense_ones_do(file, name: str, hparams: dict, monkeypatch) -> None:
    """Any batch size and order, too, and a pass that was broken off."""
    data = create(file, view="tfidf" if name == "svm" else "counts", ngrams=2)
    batch = all_rows(data)
    weighted = batch._replace(weight=torch.rand(batch.size, generator=torch.Generator().manual_seed(0)))

    def fitted(batch, order, size: int):
        model = zoo.create_model(name, spec=data.spec, **hparams)
        model.fit_batches(lambda: batch.rows(order).split(size))
        with torch.no_grad():
            return model, model(model.as_batch(batch).x)

    shuffled = torch.randperm(batch.size, generator=torch.Generator().manual_seed(1))
    for rows in (batch, weighted):
        model, ours = fitted(rows, torch.arange(rows.size), 1000)
        assert model.takes_sparse
        for order, size in ((shuffled, 1000), (shuffled, 7), (torch.arange(rows.size), 1)):
            torch.testing.assert_close(fitted(rows, order, size)[1], ours, rtol=1e-12, atol=1e-12)
        dense = rows._replace(x=rows.x.to_dense())
        spec = dataclasses.replace(data.spec, sparse=False)
        theirs = zoo.create_model(name, spec=spec, **hparams)
        theirs.fit_batches(lambda dense=dense: dense.split(9))
        with torch.no_grad():
            torch.testing.assert_close(theirs(theirs.as_batch(dense).x), ours, rtol=1e-10, atol=1e-10)
    half = zoo.create_model(name, spec=data.spec, **hparams)
    half.accumulate(half.as_batch(batch.rows(slice(20))))
    again = zoo.create_model(name, spec=data.spec, **hparams)
    half._state()
    again.load_state_dict(half.state_dict())
    again.accumulate(again.as_batch(batch.rows(slice(20, None))))
    again.solve()
    with torch.no_grad():
        torch.testing.assert_close(
            again(again.as_batch(batch).x), fitted(batch, shuffled, 9)[1], rtol=1e-12, atol=1e-12
        )


def test_models_that_ask_for_no_sparse_rows_get_dense_ones(file) -> None:
    data = create(file, view="counts")
    batch = all_rows(data)
    model = zoo.create_model("logistic_regression", spec=data.spec)
    assert torch.equal(model.as_batch(batch).x, batch.x.to_dense().to(model.input_dtype))
    assert torch.equal(batch.rows(torch.tensor([3, 1])).x.to_dense(), batch.x.to_dense()[[3, 1]])


def test_n_grams_stay_within_a_text() -> None:
    texts = [[3, 1, 2], [], [2], [1, 2, 1, 2]]
    flat = Ragged(torch.tensor([t for text in texts for t in text]), torch.tensor([len(text) for text in texts]))
    keys, rows = n_grams(flat, 3, base=9)
    expected = [
        (sum((token + 1) * 10 ** (n - 1 - i) for i, token in enumerate(text[start : start + n])), row)
        for n in (1, 2, 3)
        for row, text in enumerate(texts)
        for start in range(len(text) - n + 1)
    ]
    assert sorted(zip(keys.tolist(), rows.tolist(), strict=True)) == sorted(expected)
    kept = n_grams(flat, 2, base=9, left_out=[1])[0].tolist()
    assert sorted(kept) == [3, 3, 3, 3, 4]  # of the words 2 and 3 alone, which never stand side by side


def test_the_most_frequent_are_features_and_long_keys_are_refused(file) -> None:
    data = create(file, view="counts", max_features=4)
    counts = CountVectorizer(lowercase=False, token_pattern=r"\w+|[^\w\s]+").fit_transform(training_texts(data)).sum(0)
    assert all_rows(data).x.to_dense().sum() == np.sort(np.asarray(counts).ravel())[-4:].sum()
    with pytest.raises(zoo.ZooError, match=r"too many to tell apart: pass data\.hashed=true"):
        _ = create(file, view="counts", ngrams=20).spec


# -- what is learnt, and where it goes -------------------------------------------------------------------------------


def test_vocabulary_is_of_the_training_rows_alone(tmp_path) -> None:
    rows = [("x", f"word{i}") for i in range(50)] + [("y", f"word{i}") for i in range(50, 100)]
    with open(tmp_path / "m.csv", "w", newline="") as target:
        csv.writer(target).writerows([("kind", "text"), *rows])
    data = create(str(tmp_path / "m.csv"), val_fraction=0.1, test_fraction=0.2)
    words = {rows[i][1] for i in data.rows("train").index.tolist()}
    assert set(Tokenizer.from_json(data.spec.tokenizer).vocabulary) == words | {"[UNK]"}
    assert not all_rows(data, "test").tokens.any()  # all unknown


@pytest.mark.parametrize("options", [{}, {"view": "tfidf", "ngrams": 2}], ids=["tokens", "tfidf"])
def test_a_model_travels_with_its_texts(file, tmp_path, options) -> None:
    data = create(file, **options)
    model = zoo.create_model("mlp", widths=[4]) if not options else zoo.create_model("logistic_regression")
    zoo.fit(model, data, max_epochs=2, device="cpu")
    zoo.save_model(model, tmp_path / "m.ckpt")
    again = zoo.load_model(tmp_path / "m.ckpt")
    texts = ["free cash now", "", "see you", "NA"]
    assert again.predict(texts).tolist() == model.predict(texts).tolist()
    assert set(again.predict(texts)) <= {"ham", "spam"}
    assert again.predict("free").tolist() == again.predict(["free"]).tolist()
    table = pa.table({"more": [1, 2, 3, 4], "text": texts})
    assert again.predict(table).tolist() == again.predict(texts).tolist()
    assert again.predict(np.array(texts, dtype=object)).tolist() == again.predict(texts).tolist()
    for wrong in ([[1, 2]], [3.0], pa.table({"words": texts})):
        with pytest.raises(zoo.ZooError, match="text"):
            again.predict(wrong)
    new = create(file, val_fraction=0, test_fraction=0)
    new.follow(again.preprocessing, again.spec.tokenizer)
    assert new.spec.tokenizer == data.spec.tokenizer
    assert zoo.evaluate(again, new, split="train")["accuracy"] == pytest.approx(
        again.score(messages()[0], messages()[1])
    )


def test_parquet_and_streamed_files_give_the_same_rows(file, tmp_path) -> None:
    texts, kinds = messages()
    pq.write_table(pa.table({"kind": kinds, "text": texts}), tmp_path / "m.parquet", row_group_size=17)
    held = all_rows(create(file))
    options = {"target": "kind", "text": "text"}
    for data in (
        zoo.create_data("parquet", path=str(tmp_path / "m.parquet"), **options),
        zoo.create_data("parquet", path=str(tmp_path / "m.parquet"), in_memory_limit=0, **options),
        create(file, in_memory_limit=0, cache_dir=str(tmp_path)),
    ):
        batch = all_rows(data)
        assert torch.equal(batch.tokens, held.tokens)
        assert torch.equal(batch.y, held.y)


def test_targets_may_be_values_or_missing(tmp_path) -> None:
    rows = [*(f"{i}.5,word{i % 3} x\n" for i in range(30)), "NA,word1\n"]
    (tmp_path / "m.csv").write_text("".join(["price,text\n", *rows]))
    options = {"target": "price", "val_fraction": 0, "test_fraction": 0}
    with pytest.raises(zoo.ZooError, match="target column 'price' lacks 1 of 31 values"):
        _ = create(str(tmp_path / "m.csv"), **options).spec
    data = create(str(tmp_path / "m.csv"), missing="drop", task="regression", **options)
    assert all_rows(data).y.tolist() == [i + 0.5 for i in range(30)]
    assert data.spec.target == "value"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text": "txt"}, "no column 'txt'"),
        ({"target": "text"}, "is the column of data.text, too"),
        ({"text": "auto", "view": "counts"}, r"need data\.text=COLUMN"),
        ({"features": ["text"]}, r"leave data\.features out"),
        ({"max_length": 0}, r"data\.max_length must be at least 1"),
        ({"vocab_size": 1}, r"data\.vocab_size=1 is too small"),
        ({"tokenizer": "nothing.json"}, "There is no tokenizer 'nothing.json'"),
    ],
)
def test_mistakes_are_one_line(file, options, message) -> None:
    with pytest.raises(zoo.ZooError, match=message) as error:
        _ = create(file, **options).spec
    assert "\n" not in str(error.value)


def test_a_model_says_which_view_it_takes(file) -> None:
    with pytest.raises(zoo.ZooError, match=r"pass data\.view=counts"):
        zoo.fit(zoo.create_model("naive_bayes"), create(file))
    with pytest.raises(zoo.ZooError, match=r"pass data\.view=tokens"):
        zoo.fit(zoo.create_model("gru"), create(file, view="counts"))
    Path(file).write_bytes(b"kind,text\na,\xff\xfe\nb,c\n")
    with pytest.raises(zoo.ZooError, match="cannot be read"):
        _ = create(file).spec


@pytest.mark.slow
def test_spam_is_told_from_ham_no_worse_than_by_scikit_learn(shared_data) -> None:
    """The best of the pipelines that people build of scikit-learn's parts, on the same rows."""
    from sklearn.feature_extraction.text import CountVectorizer as Counts
    from sklearn.naive_bayes import MultinomialNB
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import LinearSVC

    path = shared_data / "textclf" / "sms_spam" / "sms_spam.csv"
    with open(path, encoding="utf-8", newline="") as file:
        rows = np.array(list(csv.reader(file))[1:], dtype=object)
    data = zoo.create_data(
        "csv", path=str(path), target="type", text="text", lowercase=True, view="binary", ngrams=3,
        max_features=200_000, batch_size=512,
    )  # fmt: skip
    train, test = (rows[data.rows(split).index.numpy()] for split in ("train", "test"))
    signs = r"\w+|[^\w\s]+"
    pipelines = (
        make_pipeline(Counts(), MultinomialNB()),
        make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LinearSVC()),
        make_pipeline(TfidfVectorizer(ngram_range=(1, 2), token_pattern=signs), LinearSVC()),
        make_pipeline(TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True), LinearSVC()),
    )
    best = max(p.fit(train[:, 1], train[:, 0]).score(test[:, 1], test[:, 0]) for p in pipelines)
    model = zoo.fit(zoo.create_model("naive_bayes", likelihood="multinomial", alpha=0.3), data)
    ours = float(np.mean(model.predict(list(test[:, 1])) == test[:, 0]))
    print(f"ours {ours:.4f}, theirs {best:.4f}")
    assert ours >= best
