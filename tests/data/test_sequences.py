"""Text streams, series windows, images by rows and the adding problem."""

from __future__ import annotations

import pickle

import pytest
import torch

import zoo
import zoo.data.text as text_module
from zoo.data.text import TokenRows
from zoo.text import Tokenizer


def batches(rows, size):
    return [rows[torch.arange(i, i + size)] for i in range(0, len(rows), size)]


def test_streams_follow_each_other():
    rows = TokenRows(torch.arange(103), sequence_length=5, num_streams=4)
    assert len(rows) == 20
    parts = batches(rows, 4)
    streams = torch.cat([batch.tokens for batch in parts], dim=1)  # (B, T of all batches)
    for stream in range(4):
        assert streams[stream].tolist() == list(range(stream * 25, stream * 25 + 25))
    for batch in parts:
        assert torch.equal(batch.y, batch.tokens + 1)


def test_short_text_gives_fewer_streams():
    rows = TokenRows(torch.arange(12), sequence_length=5, num_streams=64)
    assert rows.batch_size == 2
    assert len(rows) == 2


def test_python_docs_split_by_position():
    data = zoo.create_data("python_docs", sequence_length=50)
    assert data.spec.vocab_size > 60
    train, test = data.rows("train"), data.rows("test")
    assert len(train.tokens) > 8 * len(test.tokens) * 0.9
    loader = data.loader("val")
    first, second = list(loader)[:2]
    assert torch.equal(first.y[:, -1], second.tokens[:, 0])  # the next window begins with the last target


def test_text_file(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("hello world " * 200)
    data = zoo.create_data("text_file", path=str(file), sequence_length=16, batch_size=4)
    assert data.rows("train")[torch.arange(4)].tokens.shape == (4, 16)
    for path, message in ((None, "data.path is missing"), (str(tmp_path / "no.txt"), "There is no text at")):
        with pytest.raises(zoo.ZooError, match=message):
            _ = zoo.create_data("text_file", path=path).spec
    file.write_bytes(b"")
    with pytest.raises(zoo.ZooError, match=r"a\.txt is empty"):
        _ = zoo.create_data("text_file", path=str(file)).spec
    file.write_bytes(b"\xff\xfe\xfa" * 100)
    with pytest.raises(zoo.ZooError, match="not UTF-8"):
        _ = zoo.create_data("text_file", path=str(file)).spec
    file.write_text("short")
    with pytest.raises(zoo.ZooError, match=r"lower data\.sequence_length"):
        _ = zoo.create_data("text_file", path=str(file)).spec


def test_a_vocabulary_is_of_the_training_part_alone(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("to be or not\n" * 80 + "zyx\n" * 20)
    for kind in ("char", "word", "bpe", "wordpiece", "unigram"):
        options = {"path": str(file), "tokenizer": kind, "vocab_size": 270, "sequence_length": 4}
        data = zoo.create_data("text_file", val_fraction=0, test_fraction=0.05, **options)
        tokenizer = Tokenizer.from_json(data.spec.tokenizer)
        assert data.spec.vocab_size == tokenizer.vocab_size == len(tokenizer.vocabulary)
        train = tokenizer.decode(data.rows("train").tokens)
        assert "zyx" in train
        data = zoo.create_data("text_file", val_fraction=0, test_fraction=0.1, **options)
        text = Tokenizer.from_json(data.spec.tokenizer).decode(data.rows("train").tokens)
        assert "zyx" not in text
        assert "zyx" not in "".join(Tokenizer.from_json(data.spec.tokenizer).vocabulary)


def test_documents_are_parted_by_the_token_of_the_end(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(f"{name}{name} " * 20)
    options = {"path": str(tmp_path), "sequence_length": 4, "val_fraction": 0, "test_fraction": 0}
    for special, between in ((None, "\n"), (["end"], "[EOS]")):
        data = zoo.create_data("text_file", special_tokens=special, **options)
        text = Tokenizer.from_json(data.spec.tokenizer).decode(data.rows("train").tokens)
        assert text == "aa " * 20 + between + "bb " * 20


def test_an_existing_vocabulary_is_taken_as_it_is(tmp_path):
    Tokenizer.train(["a b c d"], "word", special_tokens=["pad"]).save(tmp_path / "tokenizer.json")
    (tmp_path / "a.txt").write_text("d c x " * 50)
    options = {"path": str(tmp_path / "a.txt"), "sequence_length": 4}
    data = zoo.create_data("text_file", tokenizer=str(tmp_path), **options)
    assert data.rows("train").tokens[:3].tolist() == [5, 4, 1]
    assert data.files() == [str(tmp_path / "a.txt"), str(tmp_path / "tokenizer.json")]
    with pytest.raises(zoo.ZooError, match="of a tokenizer that is learned"):
        zoo.create_data("text_file", tokenizer=str(tmp_path), lowercase=True, **options)
    with pytest.raises(zoo.ZooError, match=r"wordd'\. Did you mean"):
        _ = zoo.create_data("text_file", tokenizer="wordd", **options).spec


def test_a_text_beyond_memory_is_tokenized_once_and_gone_on_with(tmp_path, monkeypatch):
    monkeypatch.setattr(text_module, "_SPAN", 500)
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text("".join(f"{name} line {i}\n" for i in range(300)))
    options = {"path": str(tmp_path), "tokenizer": "bpe", "vocab_size": 280, "sequence_length": 8, "batch_size": 4}
    train, learned = Tokenizer.train, []
    monkeypatch.setattr(Tokenizer, "train", lambda *given, **named: learned.append(1) or train(*given, **named))
    held = zoo.create_data("text_folder", **options)
    _ = held.spec
    options |= {"in_memory_limit": 100, "cache_dir": str(tmp_path / "cache")}
    encode, calls = text_module.encode_documents, []

    def broken(tokenizer, corpus, start, stop):
        calls.append((start, stop))
        if len(calls) == 4:
            yield torch.tensor([1, 2, 3], dtype=torch.int32).numpy()  # half a span, and then the end
            raise KeyboardInterrupt
        yield from encode(tokenizer, corpus, start, stop)

    monkeypatch.setattr(text_module, "encode_documents", broken)
    with pytest.raises(KeyboardInterrupt):
        _ = zoo.create_data("text_folder", **options).spec
    mapped = zoo.create_data("text_folder", **options)
    for split in ("train", "val", "test"):
        ours, theirs = mapped.rows(split), held.rows(split)
        assert torch.equal(ours.tokens, theirs.tokens)
        index = torch.arange(len(ours))
        again = pickle.loads(pickle.dumps(ours))
        assert len(pickle.dumps(ours)) < 2000  # the file, and not the tokens
        assert torch.equal(again[index].tokens, theirs[index].tokens)
    assert calls.count(calls[3]) == 2  # the one that was broken off was made again, and no other
    assert len(calls) == len(set(calls)) + 1
    made = len(calls)
    _ = zoo.create_data("text_folder", **options).spec
    assert len(calls) == made  # once
    assert sorted(f.suffix for f in (tmp_path / "cache").iterdir()) == [".json", *[".tokens"] * 3]
    assert len(learned) == 2  # for the text in memory, and before the end that came
    (tmp_path / "a.txt").write_text("other\n" * 400)
    _ = zoo.create_data("text_folder", **options).spec
    assert len(calls) > made
    assert len(learned) == 3
    _ = zoo.create_data("text_folder", **{**options, "vocab_size": 270}).spec
    assert len(learned) == 4


def test_a_folder_that_is_none_or_empty_is_one_line(tmp_path):
    for path, message in ((None, "is no folder"), (str(tmp_path / "x"), "no folder"), (str(tmp_path), "no .txt file")):
        with pytest.raises(zoo.ZooError, match=message):
            _ = zoo.create_data("text_folder", path=path).spec
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.md").write_text("deep down " * 99)
    assert (
        zoo.create_data("text_folder", path=str(tmp_path), suffixes=[".md"]).spec.vocab_size == 8
    )  # of seven characters


def test_python_source_is_the_standard_library_in_a_fixed_order():
    options = {"num_files": 8, "tokenizer": "bpe", "vocab_size": 300, "special_tokens": ["end"]}
    data = zoo.create_data("python_source", **options)
    files = data.documents()
    assert len(files) == 8
    assert files == zoo.create_data("python_source", **options).documents()
    tokens = torch.cat([data.rows(split).tokens for split in ("train", "val", "test")])
    text = Tokenizer.from_json(data.spec.tokenizer).decode(tokens)
    assert text.split("[EOS]") == [file.read_text(encoding="utf-8") for file in files]
    assert data.sample()[0][0]


def test_series_windows(tmp_path):
    file = tmp_path / "s.csv"
    file.write_text("date,value\n" + "\n".join(f"2020-01-{i % 28 + 1:02d},{i}" for i in range(100)))
    data = zoo.create_data("series", path=str(file), window=10, horizon=2, val_fraction=0.1, test_fraction=0.2)
    train, val, test = (data.rows(split) for split in ("train", "val", "test"))
    assert (len(train), len(val), len(test)) == (59, 9, 19)
    batch = test[torch.tensor([0, 1])]
    assert batch.x[0, :, 0].tolist() == list(range(70, 80))  # the window before the held-out part
    assert batch.y.tolist() == [[80, 81], [81, 82]]
    assert data.spec.target_names == ("value +1", "value +2")


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("a,b\n1,2\n3,4\n", {}, "pass data.column"),
        ("a\n1\nx\n", {"column": "a"}, "not numeric"),
        ("a\n1\n2\n", {"column": "c"}, "no column 'c'"),
        ("a\n1\n2\nnan\n", {"column": "a"}, "missing or infinite values, the first in row 3"),
        ("a\n1\n\n2\n", {"column": "a"}, "a blank line where row 2 should be"),
        ("a,b\r\n1,2\r\n3,4\r\n \r\n\r\n5,6\r\n", {"column": "a"}, "a blank line where row 3 should be"),
        ("a\n1\n2\n", {}, "too few"),
    ],
)
def test_series_mistakes(tmp_path, content, options, message):
    file = tmp_path / "s.csv"
    file.write_text(content)
    with pytest.raises(zoo.ZooError, match=message):
        _ = zoo.create_data("series", path=str(file), **options).spec


def test_temperatures_have_their_season_and_weather():
    data = zoo.create_data("temperatures", val_fraction=0, test_fraction=0, num_days=36_500, window=1)
    values = data.rows("train").values.double()
    day = torch.arange(len(values), dtype=torch.float64)
    season = 11 + 4.5 * torch.cos(2 * torch.pi * (day - 15) / 365.25)
    weather = values - season
    correlation = torch.corrcoef(torch.stack([weather[1:], weather[:-1]]))[0, 1]
    assert correlation.item() == pytest.approx(0.7, abs=0.02)  # five standard deviations
    assert weather.mean().abs() < 0.2


def test_adding_is_the_sum_of_the_two_marked():
    batch = zoo.create_data("adding", length=20, num_rows=5000).rows("train")[torch.arange(3000)]
    marks = batch.x[:, :, 1]
    assert marks.sum(1).eq(2).all()
    assert marks[:, :10].sum(1).eq(1).all()
    torch.testing.assert_close((batch.x[:, :, 0] * marks).sum(1), batch.y)
    assert (batch.y - 1).square().mean().item() == pytest.approx(1 / 6, abs=0.015)
    assert marks[:, :10].sum(0).gt(0).all()
    assert marks[:, 10:].sum(0).gt(0).all()


def test_digits_rows_are_the_images():
    images, rows = (zoo.create_data(name).rows("train")[torch.arange(5)] for name in ("digits", "digits_rows"))
    assert torch.equal(rows.x, images.x.squeeze(1))
    assert torch.equal(rows.y, images.y)
