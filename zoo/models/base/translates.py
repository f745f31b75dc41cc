"""What models of sentence pairs share: they translate, and show what they made of held-out sentences.

Legend: B pairs, S tokens of the source, T of the target, V tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from zoo.data.spec import Batch
from zoo.errors import ZooError
from zoo.layers.loop import traced_loop
from zoo.models.base.bleu import Bleu, counts_of
from zoo.models.base.evaluation import Pooling
from zoo.models.base.generates import Generates, Prompts
from zoo.models.base.objectives import IGNORED
from zoo.text import Decoding
from zoo.text.tokenizer import special_of

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Translates"]

BEAMS = 4  # of the search for the translations that are scored
SHOWN = 12  # pairs whose translations are shown


class Translates(Generates):
    """A mixin for gradient models of sentence pairs: a subclass implements `forward(source, target, source_mask)`,
    `read(batch)`, which returns the state that a translation of the batch's sources begins with, and `next_logits`.
    """

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...
        def __call__(self, *args: Any, **options: Any) -> Any: ...

    def read(self, batch: Batch) -> Any:
        """Return what decoding knows before the first token: what was made of the sources."""
        raise NotImplementedError

    def output(self, batch: Batch) -> Tensor:
        return self(batch.source, batch.target, batch.source_mask)

    def before_trace(self) -> None:
        super().before_trace()  # type: ignore[misc]
        if not self.spec.tokenizer:
            raise ZooError(
                f"This {self.entry.name} has no tokenizer to say how texts begin and end: use zoo.save_model."
            )
        if self.hparams.layers == "torch":  # which a trace unrolls, or asks for more than it holds
            state, self.hparams.layers = self.state_dict(), "zoo"
            self.initialize(self.spec)
            self.load_state_dict(state, assign=True)

    # -- translating ------------------------------------------------------------------------------------------------

    @property
    def end(self) -> int:
        return special_of(self.tokenizer, "end", "sep")

    def begin(self, prompts: Sequence[str]) -> Prompts:
        """Return what the translations of some texts start from."""
        return self._begin(self.as_batch(self.prepare(list(prompts))))._replace(texts=prompts)

    def _begin(self, batch: Batch) -> Prompts:
        ids = [torch.tensor([special_of(self.tokenizer, "begin", "cls")])] * batch.size
        return Prompts(ids, self.read(batch), shown=False)

    def predict_batch(self, batch: Batch) -> dict[str, Tensor]:
        """Return the likeliest token after each of the targets, (B, T); of sources alone their translations."""
        if batch.target is None:
            return {"prediction": self._translated(batch)}
        output = self.output(batch)
        if self.spec.tokenizer:
            output = output.index_fill(-1, self.unsaid().to(output.device), -torch.inf)
        predicted = self.objective.predict(output)
        if batch.target_mask is not None:
            predicted = predicted.masked_fill(~batch.target_mask, IGNORED)
        return {"prediction": predicted}

    def _translated(self, batch: Batch) -> Tensor:
        """Return greedy translations, (B, T), with −100 behind their ends; T is that of the longest known target."""
        if torch.compiler.is_exporting():
            return self._traced(batch)
        steps, end = self.spec.shape[1], self.end
        said = torch.full((batch.size, steps), IGNORED, device=self.device)
        is_open = torch.ones(batch.size, dtype=torch.bool, device=self.device)
        greedy = Decoding.of({"decoding": "greedy", "steps": steps, "cache": self.caches})
        for step, tokens in enumerate(self._tokens(self._begin(batch), greedy) if batch.size else ()):
            is_open = is_open & (tokens != end)
            if not bool(is_open.any()):
                break
            said[:, step] = tokens.where(is_open, IGNORED)
        return said

    def _traced(self, batch: Batch) -> Tensor:
        """The same within `torch.export`, in as many steps for every batch, which stay a loop."""
        start, steps, barred, end = self.read(batch), self.spec.shape[1], self.unsaid(), self.end
        begin = special_of(self.tokenizer, "begin", "cls")
        parts, tree = tree_flatten(start)
        width = 1 if self.caches else steps + 1  # without a state that knows what was said, all of it is read anew
        tokens = torch.full_like(batch.source[:, :1], begin).expand(-1, width)

        def state_of(kept: Sequence[Tensor]) -> Any:
            rest = iter(kept)
            return tree_unflatten([None if part is None else next(rest) for part in parts], tree)

        def once(known: tuple[Tensor, ...], place: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
            tokens, is_open, *kept = known
            logits, state = self.next_logits(tokens, state_of(kept), every=not self.caches)
            logits = logits if self.caches else logits.index_select(1, place).squeeze(1)
            token = logits.index_fill(-1, barred, -torch.inf).argmax(-1)  # (B,)
            is_open = is_open & (token != end)
            tokens = token.unsqueeze(1) if self.caches else tokens.index_copy(1, place + 1, token.unsqueeze(1))
            kept = [part for part in tree_leaves(state) if part is not None]
            return (tokens, is_open, *kept), token.where(is_open, IGNORED)

        known = (tokens, torch.ones_like(tokens[:, 0], dtype=torch.bool), *(part for part in parts if part is not None))
        return traced_loop(once, known, torch.arange(steps, device=tokens.device).unsqueeze(1))[1].T

    def predict(self, x: Any, batch_size: int = 256, *, raw: bool = True) -> Any:
        """Return the greedy translations of texts as an array of text, as `generate` does with other decodings.

        Arguments are those of `ZooModel.predict`; a `Batch` of a DataModule gives token ids.
        """
        found = self.predict_columns(x, batch_size, raw=raw)["prediction"]
        return found if isinstance(x, Batch) else np.array(self._texts(found), dtype=np.str_)

    def answers(self, columns: dict[str, Tensor]) -> pa.Table:
        import pyarrow as pa

        return pa.table({name: pa.array(self._texts(tokens), pa.string()) for name, tokens in columns.items()})

    def _texts(self, tokens: Tensor) -> list[str]:
        end, tokenizer = self.end, self.tokenizer
        return [tokenizer.decode(row[(row >= 0) & (row != end)]) for row in tokens.cpu()]

    # -- scoring -----------------------------------------------------------------------------------------------------

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Score translations as well, which takes too long for each validation."""
        super().test_step(batch, batch_idx)  # type: ignore[misc]
        if batch.size and self.spec.tokenizer:
            weight = torch.ones(batch.size, device=self.device) if batch.weight is None else batch.weight
            self.evaluations["test"].update({"bleu": self._bleu_counts(batch)}, None, weight)

    def _bleu_counts(self, batch: Batch) -> Tensor:
        """Translate each different source by beam search, in the precision of the weights; (B, 11)."""
        assert batch.y is not None
        sources = self._sources(batch)
        row_of: dict[str, int] = {}
        number = [row_of.setdefault(source, len(row_of)) for source in sources]
        rows = torch.tensor([sources.index(source) for source in row_of], device=self.device)
        options = {"decoding": "beam", "num_beams": BEAMS, "steps": self.spec.shape[1], "cache": self.caches}
        with torch.autocast(self.device.type, enabled=False):
            found = self._searched(self._begin(batch.rows(rows)), Decoding.of(options))
        return counts_of(sources, [found[i][0] for i in number], self._texts(batch.y)).to(self.device)

    def pooling(self) -> dict[str, Pooling]:
        return {**super().pooling(), "bleu": Bleu()}  # type: ignore[misc]

    def _sources(self, batch: Batch) -> list[str]:
        mask = batch.source_mask
        return self._texts(batch.source if mask is None else batch.source.masked_fill(~mask, IGNORED))

    # -- what is shown -----------------------------------------------------------------------------------------------

    def graph_input(self, batch: Batch) -> tuple[Tensor, ...]:
        return batch.source[:1], batch.target[:1]

    def texts(self) -> Iterator[tuple[str, str]]:
        yield from ()  # a translation begins with a source: see `samples`

    def samples(self, batch: Batch) -> Iterator[tuple[str, str]]:
        """Yield some sources with the right translation and ours as a table."""
        if not self.spec.tokenizer or batch.y is None:
            return
        few = batch.rows(torch.linspace(0, batch.size - 1, min(batch.size, SHOWN)).round().long().to(self.device))
        ours = self._translated(few._replace(target=None))  # type: ignore[arg-type]
        columns = [self._sources(few), self._texts(few.y), self._texts(ours)]  # type: ignore[arg-type]
        rows = [[text.replace("|", "\\|").replace("\n", " ") for text in row] for row in zip(*columns, strict=True)]
        table = [["source", "target", "translation"], ["---"] * 3, *rows]
        yield "translations", "\n".join(f"|{'|'.join(row)}|" for row in table)

    def _names(self, tokens: Tensor) -> list[str]:
        if not self.spec.tokenizer:
            return [str(number) for number in tokens.tolist()]
        return [text for text, _ in self.tokenizer.shown(tokens.tolist())]
