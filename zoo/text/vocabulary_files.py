"""Vocabularies that are published: `tokenizer.json`, BERT's `vocab.txt`, GPT-2's `encoder.json` and `vocab.bpe`.

Source: Devlin, Chang, Lee & Toutanova 2019 (BERT); Radford et al. 2019 (GPT-2).
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.errors import ZooError, nearest
from zoo.text.learning import KINDS

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["find_vocabulary", "read_vocabulary"]

log = logging.getLogger(__name__)

# The names of a vocabulary of pairs, with those of its merges beside it.
_MERGES = {"encoder.json": "vocab.bpe", "vocab.json": "merges.txt"}
_NAMES = ("tokenizer.json", "vocab.txt", *_MERGES)


def find_vocabulary(path: Path) -> list[Path]:
    """Return the files of the vocabulary that `path` means: one, or a vocabulary and its merges.

    Raises:
        ZooError: if there is none.
    """
    if path.is_dir():
        found = next((path / name for name in _NAMES if (path / name).is_file()), None)
        if found is None:
            raise ZooError(f"The folder {path} holds no vocabulary: {', '.join(_NAMES)}.")
        path = found
    vocabularies = {merges: name for name, merges in _MERGES.items()}
    if path.name in vocabularies:
        path = path.with_name(vocabularies[path.name])
    if not path.is_file():
        raise ZooError(
            f"There is no tokenizer '{path}'.{nearest(path.name, KINDS)} Pass {', '.join(KINDS)}, or a vocabulary's "
            f"file ({', '.join(_NAMES)})."
        )
    if path.name not in _MERGES:
        return [path]
    merges = path.with_name(_MERGES[path.name])
    if not merges.is_file():
        raise ZooError(f"{path} needs its merges beside it: {merges.name}.")
    return [path, merges]


def read_vocabulary(path: Path) -> Tokenizer:
    """Return the tokenizer of a vocabulary's files.

    Raises:
        ZooError: if there are none, or they cannot be read.
    """
    files = find_vocabulary(path)
    try:
        return _read(files)
    except ZooError:
        raise
    except Exception as error:
        raise ZooError(f"{files[0]} cannot be read as a vocabulary: {' '.join(str(error).split())[:200]}.") from None


def _read(files: list[Path]) -> Tokenizer:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    if len(files) == 2:
        backend = Tokenizer(models.BPE.from_file(*map(str, files)))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        if backend.token_to_id("<|endoftext|>") is not None:
            backend.add_special_tokens(["<|endoftext|>"])
        return backend
    if files[0].suffix == ".txt":
        return _wordpiece(files[0])
    return Tokenizer.from_file(str(files[0]))


def _wordpiece(path: Path) -> Tokenizer:
    """BERT's vocabulary, a token a line; one without any capital letter reads capital letters as small ones."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    tokens = path.read_text(encoding="utf-8").splitlines()
    if "[UNK]" not in tokens:
        raise ZooError(f"{path} is no vocabulary of BERT: it has no line [UNK].")
    special = [token for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]") if token in tokens]
    lowercase = not any(token != token.lower() for token in tokens if not token.startswith("["))
    log.info("%s has %s: texts are read %s.", path, *(("no capital letter", "in small letters") if lowercase else
                                                      ("capital letters", "as they are")))  # fmt: skip
    backend = Tokenizer(models.WordPiece.from_file(str(path), unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.add_special_tokens(special)
    return backend
