"""Skip-gram with negative sampling on 10 million characters of text8 beside gensim, on two threads each.

Both train 100 dimensions for 5 epochs with the same hyperparameters, of text that is in memory and whose words are
numbered already; our time counts the words, too. Agreement with people (WordSim-353) and right analogies of ours may
not be below gensim's by more than 0.02.
"""

from __future__ import annotations

import importlib.util
import lzma
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

import zoo
from benchmarks import Job
from benchmarks._grid import name_of
from zoo.text import WordVectors

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
TEXT, WORDS = SHARED / "text" / "text8_first10M.txt.xz", SHARED / "wordvec"
DIMENSIONS, EPOCHS, WINDOW, NEGATIVES, RATE, MIN_COUNT, SUBSAMPLE = 100, 5, 5, 5, 0.025, 5, 1e-3
SENTENCE, THREADS = 1000, 2
SLACK = 0.02


@cache
def text() -> str:
    return lzma.open(TEXT, "rt").read()


@cache
def our_data() -> Any:
    return numbered(text())


def numbered(words: str) -> Any:
    """Return a text as data whose words have their numbers."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "text.txt")
        file.write_text(words)
        data = zoo.create_data(
            "text_file", path=str(file), tokenizer="word", vocab_size=100_000, min_count=MIN_COUNT,
            sequence_length=SENTENCE, batch_size=32, val_fraction=0.0, test_fraction=0.0,
        )  # fmt: skip
        data.setup()
    return data


@cache
def sentences() -> list[list[str]]:
    words = text().split()
    return [words[i : i + SENTENCE] for i in range(0, len(words), SENTENCE)]


def ours() -> Any:
    model = zoo.create_model(
        "word2vec", embedding_size=DIMENSIONS, window=WINDOW, negatives=NEGATIVES, subsample=SUBSAMPLE
    )
    return zoo.fit(model, our_data(), max_epochs=EPOCHS, lr=RATE, device="cpu")


peer: Any = None


def new_peer() -> None:
    """Make gensim's model and its vocabulary, outside the time that is taken."""
    global peer
    from gensim.models import Word2Vec

    torch.set_num_threads(THREADS)
    our_data()
    peer = Word2Vec(
        vector_size=DIMENSIONS, window=WINDOW, negative=NEGATIVES, alpha=RATE, min_count=MIN_COUNT, sample=SUBSAMPLE,
        sg=1, workers=THREADS, seed=1,
    )  # fmt: skip
    peer.build_vocab(sentences())


def gensim() -> Any:
    peer.train(sentences(), total_examples=peer.corpus_count, epochs=EPOCHS)
    return peer


def agreement(words: WordVectors) -> tuple[float, float]:
    """Return Spearman's correlation on WordSim-353 and the share of right analogies."""
    pairs = words.rate_pairs(WORDS / "word-sim" / "EN-WS-353-ALL.txt")
    sections = words.answer_questions(WORDS / "questions-words.txt")
    judged = [section for section in sections if section.judged]
    right = sum(section.value * section.judged for section in judged) / sum(section.judged for section in judged)
    return pairs[0].value, right


def check(mine: Any, other: Any) -> None:
    vectors = torch.from_numpy(other.wv.vectors.copy())
    found = agreement(mine.word_vectors), agreement(WordVectors(other.wv.index_to_key, vectors))
    for name, a, b in zip(("WordSim-353", "analogies"), *found, strict=True):
        print(f"{name}: ours {a:.4f}, gensim's {b:.4f}")
        if a < b - SLACK:
            raise AssertionError(f"{name}: ours {a:.4f} is more than {SLACK} below gensim's {b:.4f}")


def jobs() -> Iterator[Job]:
    if not TEXT.is_file():
        print(f"left out: there is no {TEXT.name}")
        return
    name = f"word2vec, skip-gram of {len(text().split()):,} words, {DIMENSIONS} dimensions, {EPOCHS} epochs"
    yield Job(name, ours, gensim, f"gensim ({THREADS} threads)", pairs=3, bound=0.5, setup=new_peer, check=check)


GRID = (  # words of the text, dimensions, epochs
    (10_000, 16, 5), (10_000, 100, 5), (100_000, 16, 3), (100_000, 100, 3), (100_000, 300, 2), (1_000_000, 32, 1),
    (1_000_000, 200, 1),
)  # fmt: skip


def grid() -> Iterator[Job]:
    """Yield texts from short to long, whose words are as frequent as people's, in few and many dimensions."""
    if importlib.util.find_spec("gensim") is None:
        print("left out: there is no gensim")
        return
    from gensim.models import Word2Vec

    for count, dimensions, epochs in GRID:
        drawn = np.minimum(np.random.default_rng(0).zipf(1.4, count), 20_000)
        words = [f"w{number}" for number in drawn]
        data, cut = numbered(" ".join(words)), [words[i : i + SENTENCE] for i in range(0, count, SENTENCE)]
        where = {"rows": count, "dimensions": dimensions}

        def ours(data: Any = data, dimensions: int = dimensions, epochs: int = epochs) -> Any:
            model = zoo.create_model("word2vec", embedding_size=dimensions, window=WINDOW, negatives=NEGATIVES)
            return zoo.fit(model, data, max_epochs=epochs, lr=RATE, device="cpu")

        def peer(cut: Any = cut, dimensions: int = dimensions, epochs: int = epochs) -> Any:
            return Word2Vec(
                cut, vector_size=dimensions, window=WINDOW, negative=NEGATIVES, alpha=RATE, min_count=MIN_COUNT,
                sample=SUBSAMPLE, sg=1, workers=torch.get_num_threads(), seed=1, epochs=epochs,
            )  # fmt: skip

        yield Job(
            f"word2vec, {epochs} epochs, {name_of(**where)}", ours, peer, "gensim", pairs=3, where=where,
            quick=count * dimensions * epochs <= 5_000_000,
        )  # fmt: skip
