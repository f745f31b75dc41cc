"""A folder with what README and docs take a reader to have: tables, texts, images, files of other programs."""

from __future__ import annotations

import csv
import gzip
import json
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

import zoo
from zoo.text import Tokenizer

TEXT = """
the king and queen sleep while a man or woman reads good old books to them in paris london berlin rome france england
germany italy that one day went far from home where every child knew what it was like
"""
WORDS = TEXT.split()
SPAM = ["free", "prize", "call", "now", "win", "cash"]
HAM = ["see", "you", "at", "eight", "home", "tonight"]


def fill(folder: Path) -> None:
    """Write the files."""
    drawn = random.Random(0)
    _tables(folder, np.random.default_rng(0))
    _texts(folder, drawn)
    _word_lists(folder, drawn)
    _images(folder, np.random.default_rng(1))
    _models(folder)


def _tables(folder: Path, rng: np.random.Generator) -> None:
    x = rng.normal(size=(200, 3)).round(3)
    label = (x[:, 0] + x[:, 1] > 0).astype(int)
    rows = {"a": x[:, 0], "b": x[:, 1], "c": x[:, 2]}
    _write_csv(folder / "table.csv", {**rows, "y": np.where(label, "yes", "no")})
    _write_csv(folder / "new.csv", {**{k: v[:40] for k, v in rows.items()}, "y": np.where(label, "yes", "no")[:40]})
    _write_csv(folder / "big.csv", {**rows, "label": np.where(label, "yes", "no")})
    wide = {f"x{number}": values for number, values in enumerate(rng.normal(size=(40, 200)))}
    pq.write_table(pa.table({**wide, "label": label}), folder / "big.parquet")
    price = (3 * x[:, 0] - x[:, 1] + rng.normal(size=200)).round(2)
    with gzip.open(folder / "housing.csv.gz", "wt") as file:
        file.write(
            "a,b,price\n"
            + "".join(
                f"{a},{'' if i == 7 else b},{p}\n"
                for i, (a, b, p) in enumerate(zip(x[:, 0], x[:, 1], price, strict=True))
            )
        )
    days = np.arange(400)
    sales = (50 + 10 * np.sin(days / 7 * 2 * np.pi) + rng.normal(size=400)).round(2)
    dates = (np.datetime64("2024-01-01") + days).astype(str)
    _write_csv(folder / "sales.csv", {"day": dates, "sales": sales})
    _write_csv(folder / "daily-min-temperatures.csv", {"Date": dates, "Temp": (sales / 4).round(1)})
    things = ["bread", "milk", "jam", "eggs", "tea", "rice"]
    baskets = [
        ",".join(t for t, p in zip(things, (0.7, 0.6, 0.4, 0.3, 0.2, 0.1), strict=True) if rng.random() < p)
        for _ in range(200)
    ]
    (folder / "groceries.csv").write_text("\n".join(basket or "bread" for basket in baskets) + "\n")


def _write_csv(path: Path, columns: dict[str, np.ndarray]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*(column.tolist() for column in columns.values()), strict=True))


def sentence(drawn: random.Random, length: int = 8) -> str:
    return " ".join(drawn.choices(WORDS, k=length))


def _texts(folder: Path, drawn: random.Random) -> None:
    speech = "".join(f"ROMEO:\n{sentence(drawn).capitalize()}.\n\n" for _ in range(300))
    (folder / "input.txt").write_text(speech)
    (folder / "mine.txt").write_text(speech[::-1][:4000][::-1])
    (folder / "new.txt").write_text("\n".join(sentence(drawn) for _ in range(5)) + "\n")
    (folder / "text8.txt").write_text(" ".join(sentence(drawn) for _ in range(500)))
    for name, suffix in (("texts", ".txt"), ("books", ".txt"), ("books", ".md")):
        (folder / name).mkdir(exist_ok=True)
        for number in range(12):
            text = "\n".join(sentence(drawn, 12) for _ in range(25))
            (folder / name / f"{number}{suffix}").write_text(f"The meaning of life is {text}\n")
    rows = [(name, " ".join(drawn.choices(words, k=6))) for name, words in [("ham", HAM), ("spam", SPAM)] * 60]
    for name in ("sms.csv", "sms_spam.csv"):
        _write_csv(folder / name, {"type": np.array([t for t, _ in rows]), "text": np.array([t for _, t in rows])})
    french = {
        "I": "je",
        "you": "tu",
        "are": "es",
        "am": "suis",
        "tired": "fatigué",
        "here": "ici",
        "where": "où",
        "now": "maintenant",
    }
    pairs = []
    for _ in range(300):
        words = drawn.choices(list(french), k=drawn.randint(2, 6))
        pairs.append(f"{' '.join(words).capitalize()}.\t{' '.join(french[w] for w in words).capitalize()}.")
    for name in ("pairs.txt", "fra.txt"):
        (folder / name).write_text("\n".join(pairs) + "\n")


def _word_lists(folder: Path, drawn: random.Random) -> None:
    rated = ["king\tqueen\t8.5", "man\twoman\t8.3", "paris\tlondon\t7.0", "king\tbooks\t1.5", "good\told\t3.0"]
    (folder / "wordsim353.txt").write_text("\n".join(rated) + "\n")
    (folder / "word-sim").mkdir()
    (folder / "word-sim" / "EN-WS-353-ALL.txt").write_text("\n".join(rated) + "\n")
    capitals = [("paris", "france"), ("london", "england"), ("berlin", "germany"), ("rome", "italy")]
    questions = [f"{a} {b} {c} {d}" for a, b in capitals for c, d in capitals if a != c]
    (folder / "questions-words.txt").write_text("\n".join([": capitals", *questions]) + "\n")
    lines = [
        f"{word} {' '.join(f'{drawn.gauss(0, 1):.4f}' for _ in range(100))}"
        for word in ("free", "prize", "call", "see", *WORDS)
    ]
    (folder / "glove.6B.100d.txt").write_text("\n".join(dict.fromkeys(lines)) + "\n")


def _images(folder: Path, rng: np.random.Generator) -> None:
    for name, level in (("cat", 60), ("dog", 180)):
        (folder / "photos" / name).mkdir(parents=True)
        for number in range(20):
            pixels = rng.integers(level - 50, level + 50, (64, 64, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / name / f"{number}.png")


def _models(folder: Path) -> None:
    """Folders as Hugging Face's hub has them, of models that know nothing."""
    texts = (folder / "input.txt").read_text().splitlines()
    tokenizer = Tokenizer.train(texts, "bpe", vocab_size=300)
    spec = zoo.DataSpec("tokens", (256,), "tokens", vocab_size=tokenizer.vocab_size, tokenizer=tokenizer.to_json())
    sizes = {"num_layers": 1, "num_heads": 2, "hidden_size": 16}
    zoo.save_pretrained(zoo.create_model("gpt", spec, **sizes), folder / "gpt2")
    pairs = json.loads(tokenizer.to_json())["model"]
    (folder / "gpt2" / "encoder.json").write_text(json.dumps(pairs["vocab"]))
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in pairs["merges"]]
    (folder / "gpt2" / "vocab.bpe").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    words = Tokenizer.train(texts, "word", special_tokens=["pad", "unknown"])
    spec = zoo.DataSpec("tokens", (64,), "tokens", vocab_size=words.vocab_size, tokenizer=words.to_json())
    zoo.save_pretrained(zoo.create_model("bert", spec, **sizes), folder / "bert-base-uncased")
