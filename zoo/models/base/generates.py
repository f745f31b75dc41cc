"""What language models share: going on with a text, token by token."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from zoo.checks import check_type
from zoo.errors import ZooError
from zoo.text import Decoding, Reader, TextStream, Tokenizer, beam_search, decode, select_rows, speculate
from zoo.text.learning import ROLES

__all__ = ["Generates", "Prompts"]


class Prompts(NamedTuple):
    """What a model begins with.

    Attributes:
        ids: the token ids of each row, one at least.
        state: what it knows before the first of them, such as sentences to translate.
        shown: whether the prompts are part of the text that comes out.
        texts: the prompts themselves, where they are texts.
    """

    ids: list[Tensor]
    state: Any = None
    shown: bool = True
    texts: Sequence[str] = ()


class Generates:
    """A mixin for models that say, after tokens, how probable each next one is: a subclass implements `next_logits`.

    A state is made of tensors, in tuples, lists and dictionaries, with the rows along `state_dim`; a subclass whose
    states are something else implements `select_state`, and `rewind` where it can. `context` says how many tokens it
    sees at most. A model that translates implements `begin`, which says what it starts from.
    """

    state_dim = 0

    if TYPE_CHECKING:
        spec: Any
        device: Any
        training: bool

        def check_fitted(self) -> None: ...
        def eval(self) -> Any: ...
        def train(self, mode: bool = True) -> Any: ...

    @property
    def context(self) -> int | None:
        """The most tokens that the model sees, or None."""
        return None

    @property
    def caches(self) -> bool:
        """Whether the model has a state, so that tokens are read once."""
        return True

    def next_logits(
        self, tokens: Tensor, state: Any = None, mask: Tensor | None = None, every: bool = False
    ) -> tuple[Tensor, Any]:
        """Return the logits of the token after `tokens` (B, T), as (B, V), and what the next call takes as `state`.

        Args:
            tokens: (B, T).
            state: what the call before returned. It stays as it was, or `rewind` takes it back.
            mask: which tokens are there (B, T), where rows are padded behind their last one.
            every: return the logits after each token, (B, T, V).
        """
        raise NotImplementedError

    def select_state(self, state: Any, rows: Tensor) -> Any:
        """Return the state of some rows (N,), each any number of times."""
        return select_rows(state, rows, self.state_dim)

    def rewind(self, state: Any, count: int) -> Any:
        """Return the state as it was `count` tokens before, or None where it cannot be had."""
        return None

    def begin(self, prompts: Sequence[str]) -> Prompts:
        """Return what the model goes on with: the tokens of each prompt, or where there are none a first one."""
        tokenizer = self.tokenizer
        first = next((n for role in ("begin", "end") if (n := tokenizer.special(role)) is not None), 0)
        ids = [tokenizer.encode(prompt) for prompt in prompts]
        ids = [row if len(row) else torch.tensor([first]) for row in ids]
        for prompt, row in zip(prompts, ids, strict=True):
            if self.context is not None and len(row) > self.context:
                raise ZooError(
                    f"The prompt {_short(prompt)} has {len(row)} tokens, and the model sees {self.context}: shorten it."
                )
        return Prompts(ids)

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that the model was trained with."""
        return Tokenizer.from_json(self.spec.tokenizer)

    @property
    def end(self) -> int | None:
        """The id of the token that ends a text, or None where none does."""
        return self.tokenizer.special("end")

    def unsaid(self) -> Tensor:
        """Return the ids (N,) of the special tokens that are part of no text: all but the one that ends it."""
        found = {self.tokenizer.special(role) for role in ROLES} - {None, self.end}
        return torch.tensor(sorted(found), dtype=torch.long)  # type: ignore[type-var]

    # -- going on ------------------------------------------------------------------------------------------------

    def generate(
        self,
        prompt: str | Sequence[str] = "\n",
        steps: int = 400,
        temperature: float = 0.8,
        top_k: int | None = None,
        seed: int = 0,
        *,
        draft: Generates | None = None,
        **options: Any,
    ) -> Any:
        """Return the prompt and what the language model makes of it.

        Each of several prompts is gone on with as if it were alone.

        Args:
            prompt: the beginning, or a list of several; may be empty.
            steps: number of tokens to draw at most; the token for the end of a text ends it sooner.
            temperature: below 1 bolder, above 1 wilder; 0 takes the most probable token.
            top_k: draw from the k most probable tokens only.
            seed: seed of the draw.
            draft: a smaller model of the same vocabulary, whose proposals are read many at once: the same text, sooner.
            **options: those of `zoo.text.Decoding`: `decoding="beam"`, `top_p`, `stop`, ….

        Returns:
            A text, or a list of texts for several prompts; with `num_return` above 1 a list of so many for each.

        Raises:
            ZooError: for an option out of range, a prompt longer than the model's context, or a draft that reads
                another vocabulary.
        """
        chosen = Decoding.of({"steps": steps, "temperature": temperature, "top_k": top_k, "seed": seed, **options})
        several = isinstance(prompt, Iterable) and not isinstance(prompt, str)
        texts = check_type("prompt", list(prompt) if several else prompt, str | list[str])
        texts = texts if several else [texts]
        with self._reading(draft):
            found = self._continued(self.begin(texts), chosen, draft) if texts else []
        answers = [each if chosen.num_return > 1 else each[0] for each in found]
        return answers[0] if isinstance(prompt, str) else answers

    @torch.inference_mode()
    def stream(self, prompt: str = "\n", *, draft: Generates | None = None, **options: Any) -> Iterator[str]:
        """Yield what the language model makes of a prompt, piece by piece, as it is drawn.

        Arguments are those of `generate`; together the pieces are its answer without the prompt.

        Raises:
            ZooError: for beam search, which knows its answer at the end.
        """
        chosen = Decoding.of(options)
        if chosen.decoding == "beam" or chosen.num_return > 1:
            raise ZooError("A stream is one continuation, drawn token by token: pass decoding=sample or greedy.")
        with self._reading(draft):
            prompts, end = self.begin([check_type("prompt", prompt, str)]), self.end
            stream = TextStream(self.tokenizer, prompts.ids[0].tolist() if prompts.shown else [], chosen.stops)
            for token in self._tokens(prompts, chosen, draft):
                if int(token) == end:
                    break
                if piece := stream.push(int(token)):
                    yield piece
                if stream.stopped:
                    return
            if piece := stream.end():
                yield piece

    def shown(self, prompt: str) -> str:
        """Return what of a prompt stands before the pieces of `stream` in the answer of `generate`."""
        prompts = self.begin([prompt])
        return self.tokenizer.decode(prompts.ids[0]) if prompts.shown else ""

    @contextlib.contextmanager
    def _reading(self, draft: Any) -> Iterator[None]:
        """Prepare for it, and leave everything as it was."""
        self.check_fitted()
        models = [self] if draft is None else [self, draft]
        if draft is not None:
            self._check_draft(draft)
        training = [model.training for model in models]
        for model in models:
            model.eval()
        try:
            with torch.inference_mode():
                yield
        finally:
            for model, mode in zip(models, training, strict=True):
                model.train(mode)

    def _check_draft(self, draft: Any) -> None:
        if not isinstance(draft, Generates):
            raise ZooError(f"draft must be a language model, not {type(draft).__name__}.")
        draft.check_fitted()
        if draft.spec.kind != self.spec.kind:
            raise ZooError(f"draft is a model of {draft.spec.kind}, and this one is of {self.spec.kind}.")
        if draft.spec.vocab_size != self.spec.vocab_size or draft.tokenizer.vocabulary != self.tokenizer.vocabulary:
            raise ZooError("draft reads another vocabulary: take one that was trained with the same tokenizer.")

    def _reader(self, prompts: Prompts, options: Decoding) -> Reader:
        """The prompts as rows to read."""
        lengths = [len(row) for row in prompts.ids]
        tokens = torch.nn.utils.rnn.pad_sequence(prompts.ids, batch_first=True).to(self.device)
        # A proposal or two may stand behind the last token for a while.
        room, keep = options.steps + options.draft_steps, options.draft_steps + 1
        return Reader(
            self, tokens, lengths, room=room, state=prompts.state, cache=options.cache, keep=keep, barred=self.unsaid()
        )

    def _tokens(self, prompts: Prompts, options: Decoding, draft: Any = None) -> Iterator[Tensor]:
        """Yield the next token of each row, greedy or drawn."""
        reader = self._reader(prompts, options)
        generators = []
        for row in range(len(prompts.ids)):  # of several draws from a prompt each has a seed of its own
            generators.append(torch.Generator().manual_seed(options.seed + row % options.num_return))
        if draft is None:
            yield from decode(reader, options, generators)
            return
        begun = prompts if prompts.state is None else draft.begin(prompts.texts)
        yield from speculate(
            reader, draft._reader(begun, options), options.distribution,
            steps=options.steps, num_proposals=options.draft_steps, needs_seen=options.repetition_penalty != 1,
            generator=generators[0],
        )  # fmt: skip

    def _continued(self, prompts: Prompts, options: Decoding, draft: Any) -> list[list[str]]:
        """Return the continuations of each prompt."""
        if options.decoding == "beam":
            if draft is not None:
                raise ZooError("draft does nothing with decoding=beam: pass decoding=greedy or sample.")
            return self._searched(prompts, options)
        count = options.num_return
        repeated = torch.arange(len(prompts.ids)).repeat_interleave(count)
        rows = prompts._replace(ids=[prompts.ids[i] for i in repeated.tolist()])
        if count > 1:
            texts = [text for text in prompts.texts for _ in range(count)]
            rows = rows._replace(state=self.select_state(prompts.state, repeated), texts=texts)
        if draft is None:
            found = self._drawn(rows, options, None)
        else:  # rows would take different numbers of proposals
            single = [self._one(rows, row) for row in range(len(rows.ids))]
            seeds = [options.seed + row % count for row in range(len(single))]
            one = [replace(options, seed=seed, num_return=1) for seed in seeds]
            found = [self._drawn(row, own, draft)[0] for row, own in zip(single, one, strict=True)]
        return [found[i : i + count] for i in range(0, len(found), count)]

    def _one(self, prompts: Prompts, row: int) -> Prompts:
        state = self.select_state(prompts.state, torch.tensor([row]))
        return prompts._replace(ids=[prompts.ids[row]], state=state, texts=prompts.texts[row : row + 1])

    def _drawn(self, prompts: Prompts, options: Decoding, draft: Any) -> list[str]:
        """Return the text of each row, which goes on until it ends."""
        end, stops = self.end, options.stops
        streams = [TextStream(self.tokenizer, ids.tolist() if prompts.shown else [], stops) for ids in prompts.ids]
        drawn: list[list[int]] = [[] for _ in prompts.ids]
        is_open = [True] * len(drawn)
        for tokens in self._tokens(prompts, options, draft):
            for row, token in enumerate(tokens.tolist()):
                if not is_open[row]:
                    continue
                if token == end:
                    is_open[row] = False
                    continue
                drawn[row].append(token)
                if stops:
                    streams[row].push(token)
                    is_open[row] = not streams[row].stopped
            if not any(is_open):
                break
        return [self._text(ids, row, prompts.shown, stops) for ids, row in zip(prompts.ids, drawn, strict=True)]

    def _searched(self, prompts: Prompts, options: Decoding) -> list[list[str]]:
        """Return the best continuations of each prompt."""
        end, tokenizer, stops = self.end, self.tokenizer, options.stops

        def ends(candidates: Tensor) -> Tensor:  # (B, C, t)
            ended = torch.zeros(candidates.shape[:2], dtype=torch.bool, device=candidates.device)
            if end is not None:
                ended |= candidates[..., -1] == end
            if stops:
                texts = [[tokenizer.decode(ids) for ids in row] for row in candidates.tolist()]
                ended |= torch.tensor([[any(s in t for s in stops) for t in row] for row in texts], device=ended.device)
            return ended

        if not options.steps:
            return [[self._text(ids, [], prompts.shown, ())] * options.num_return for ids in prompts.ids]
        found = beam_search(
            self._reader(prompts, options), steps=options.steps, num_beams=options.num_beams,
            length_penalty=options.length_penalty, early_stopping=options.early_stopping,
            repetition_penalty=options.repetition_penalty, ends=ends if stops or end is not None else None,
        )  # fmt: skip
        texts = []
        for ids, hypotheses in zip(prompts.ids, found, strict=True):
            rows = [hypothesis.tokens.tolist() for hypothesis in hypotheses[: options.num_return]]
            rows = [row[:-1] if row[-1] == end else row for row in rows]
            texts.append([self._text(ids, row, prompts.shown, stops) for row in rows])
        return texts

    def _text(self, prompt: Tensor, drawn: list[int], shown: bool, stops: Sequence[str]) -> str:
        """Return prompt and continuation as one text, cut before the first of the stop texts."""
        before = prompt.tolist() if shown else []
        text, begin = self.tokenizer.decode(before + drawn), len(self.tokenizer.decode(before))
        return text[: min((place for stop in stops if (place := text.find(stop, begin)) >= 0), default=None)]

    def texts(self) -> Iterator[tuple[str, str]]:
        """Yield a sample for TensorBoard."""
        if self.spec.target == "tokens" and self.spec.tokenizer:
            sample = self.generate().replace("\n", "\n    ")
            yield "sample", f"    {sample}"  # indented: TensorBoard reads Markdown


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:37]}...")
