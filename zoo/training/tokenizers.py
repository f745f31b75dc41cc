"""The tokenizer of a run: learnt once, by the first process, and the same in all others and after each resume.

What the library learns may differ in its last digits from one time to the next, for WordPiece and Unigram.
"""

from __future__ import annotations

from pathlib import Path

from zoo.training.checkpoint import write_whole
from zoo.training.processes import agree, global_rank, with_store

__all__ = ["keep_tokenizer", "share_tokenizer", "tokenizer_of"]


def tokenizer_of(run_dir: Path) -> str | None:
    """Return the JSON of the tokenizer that the run, or its first process, has learnt; None to learn one."""
    if with_store() and global_rank() > 0:
        return agree("tokenizer", None)  # waits for `share_tokenizer` of the first process
    kept, resumed = run_dir / "tokenizer.json", (run_dir / "checkpoints" / "last.ckpt").is_file()
    return kept.read_text(encoding="utf-8") if kept.is_file() and (resumed or global_rank() > 0) else None


def share_tokenizer(tokenizer: str | None) -> None:
    """Let the processes that wait in `tokenizer_of` go on; those that Lightning starts later read the run's folder."""
    if with_store() and global_rank() == 0:
        agree("tokenizer", tokenizer)


def keep_tokenizer(run_dir: Path, tokenizer: str | None) -> None:
    """Write `tokenizer.json` into the run, where its data have one."""
    if tokenizer is not None:
        write_whole(run_dir / "tokenizer.json", lambda file: file.write(tokenizer.encode()))
