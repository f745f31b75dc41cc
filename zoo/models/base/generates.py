"""What language models share: going on with a text, token by token."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zoo.text import Tokenizer, sample_token

__all__ = ["Generates"]


class Generates:
    """A mixin for models that say, after tokens, how probable each next one is: a subclass implements `next_logits`."""

    if TYPE_CHECKING:
        spec: Any
        device: Any

        def check_fitted(self) -> None: ...
        def eval(self) -> Any: ...

    def next_logits(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Return the logits of the token after `tokens` (B, T), as (B, V), and what the next call takes as `state`."""
        raise NotImplementedError

    @torch.inference_mode()
    def generate(
        self, prompt: str = "\n", steps: int = 400, temperature: float = 0.8, top_k: int | None = None, seed: int = 0
    ) -> str:
        """Return the prompt and what the language model makes of it.

        Args:
            prompt: the beginning; may be empty.
            steps: number of tokens to draw.
            temperature: below 1 bolder, above 1 wilder; 0 takes the most probable token.
            top_k: draw from the k most probable tokens only.
            seed: seed of the draw.
        """
        self.check_fitted()
        tokenizer = Tokenizer.from_json(self.spec.tokenizer)
        ids = tokenizer.encode(prompt)
        ids = ids if len(ids) else torch.zeros(1, dtype=torch.long)
        generator = torch.Generator().manual_seed(seed)
        self.eval()
        drawn = [ids]
        logits, state = self.next_logits(ids.unsqueeze(0).to(self.device))
        for _ in range(steps):
            drawn.append(sample_token(logits.cpu(), temperature, top_k, generator))
            logits, state = self.next_logits(drawn[-1].unsqueeze(0).to(self.device), state)
        return tokenizer.decode(torch.cat(drawn))

    def texts(self) -> Iterator[tuple[str, str]]:
        """Yield a sample for TensorBoard."""
        if self.spec.target == "tokens" and self.spec.tokenizer:
            sample = self.generate().replace("\n", "\n    ")
            yield "sample", f"    {sample}"  # indented: TensorBoard reads Markdown
