"""Beginning with what another run has learnt: all of its weights, or adapters beside weights that stay as they are.

Fine-tuning lowers the loss of the new data from the weights of a pre-trained run. With adapters (Hu et al. 2022, see
`zoo.layers.lora`) the pre-trained weights stay, and each matrix of the layers learns a product of rank r beside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from zoo.checks import check_range
from zoo.data.spec import DataSpec
from zoo.errors import ZooError
from zoo.layers.lora import add_lora, lora_parameters, plain_state
from zoo.models.base.uses import GIVEN, Needs
from zoo.registry import make_model
from zoo.text import Tokenizer

__all__ = ["Pretrains"]

if TYPE_CHECKING:
    from zoo.models.base.module import ZooModel

_Base: Any = ZooModel if TYPE_CHECKING else object


class Pretrains(_Base):
    """A mixin for models with the hyperparameters `pretrained`, `lora_rank` and `lora_alpha`, whose layers are `core`.

    `initialize` asks for `pretrained_state` first, whose positions may be longer, and ends with `begin_with` of it.
    What such a model is saved with holds all weights: `pretrained` is null there, and no other run is asked for again.
    """

    body: ClassVar[tuple[str, ...]]  # the parts that a pre-trained run hands on; all others begin anew
    length: ClassVar[str | None] = None  # the hyperparameter that says how many positions `context` has
    needs: ClassVar[Needs] = {"lora_rank": {"pretrained": GIVEN}, "lora_alpha": {"lora_rank": GIVEN}}

    def check_adapters(self) -> None:
        """Raise one line for a rank or a strength out of range."""
        check_range("lora_rank", self.hparams.lora_rank, 1)
        check_range("lora_alpha", self.hparams.lora_alpha, 0, open_low=True)

    def pretrained_state(self, spec: DataSpec) -> dict[str, Tensor] | None:
        """Return the weights of the pre-trained run, whose vocabulary must be that of the data; None without one."""
        path, name = self.hparams.pretrained, self.entry.name
        if path is None:
            return None
        places = [Path(path), Path(path, "checkpoints", "best.ckpt"), Path(path, "checkpoints", "last.ckpt")]
        file = next((place for place in places if place.is_file()), None)
        if file is None:
            made = ": make one of it with zoo.save_model(zoo.load_pretrained(FOLDER), FILE)" if _is_folder(path) else ""
            raise ZooError(f"model.pretrained={path} is no checkpoint, nor a run that has one{made}.")
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
            about = content.get("zoo", {})
        except Exception as error:  # damaged bytes make torch's reader fail in many ways
            raise ZooError(f"model.pretrained={path} is no whole checkpoint: {type(error).__name__}.") from None
        if about.get("model") != name:
            raise ZooError(f"model.pretrained={path} is a run of {about.get('model')}, not of {name}.")
        if (content.get("hyper_parameters") or {}).get("lora_rank") is not None:
            raise ZooError(f"model.pretrained={path} has adapters: save what model.merged() gives, and pass that.")
        known = DataSpec.from_dict(about["spec"])
        if known.vocab_size != spec.vocab_size or _vocabulary(known) != _vocabulary(spec):
            own = Path(path) / "tokenizer.json"
            raise ZooError(f"model.pretrained={path} reads another vocabulary: pass data.tokenizer={own}.")
        return content["state_dict"]

    def begin_with(self, state: dict[str, Tensor] | None) -> None:
        """Take over what pre-training has learnt, if anything, and adapt it where that is asked for."""
        if state is not None:
            self._take(state)
        if self.hparams.lora_rank is not None:
            self._adapt()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        if self.hparams.pretrained is not None:
            own = {"pretrained": None} | ({} if self.length is None else {self.length: self.context})
            checkpoint["hyper_parameters"] = {**checkpoint["hyper_parameters"], **own}

    def _take(self, state: dict[str, Tensor]) -> None:
        path = self.hparams.pretrained
        own = {name: value for name, value in self.state_dict().items() if self._in_body(name)}
        for name, value in own.items():
            if name not in state or state[name].shape != value.shape:
                raise ZooError(
                    f"model.pretrained={path} does not fit: its {name} is "
                    f"{list(state[name].shape) if name in state else 'absent'}, and the data and model.num_layers, "
                    f"hidden_size and feedforward_size ask for {list(value.shape)}. Pass those of that run."
                )
        extra = next((name for name in state if self._in_body(name) and name not in own), None)
        if extra is not None:
            raise ZooError(f"model.pretrained={path} has more layers, such as {extra}: pass the options of that run.")
        self.load_state_dict({name: state[name] for name in own}, strict=False)

    def _in_body(self, name: str) -> bool:
        return name.partition(".")[0] in self.body

    def adapt(self, rank: int, alpha: float | None = None) -> None:
        """Freeze what was learnt and give each matrix of the layers an adapter, which learns in its place.

        Args:
            rank: r of the adapters.
            alpha: α, by which they count: α / r; r if None.

        Raises:
            ZooError: for a rank or a strength out of range, and where there are adapters already.
        """
        self.check_fitted()
        if self.hparams.lora_rank is not None:
            raise ZooError("The model has adapters already: go on with model.merged().")
        make_model(self.entry.name, **{**self.hparams, "lora_rank": rank, "lora_alpha": alpha})  # which checks them
        self.hparams.lora_rank, self.hparams.lora_alpha = rank, alpha
        self._adapt()

    def _adapt(self) -> None:
        add_lora(self.core, self.hparams.lora_rank, self.hparams.lora_alpha)
        for name, parameter in self.named_parameters():
            if self._in_body(name):
                parameter.requires_grad_(False)
        for parameter in lora_parameters(self):
            parameter.requires_grad_(True)

    def merged(self) -> Any:
        """Return a model whose matrices hold what the adapters have learnt: the same answers, without adapters."""
        self.check_fitted()
        assert self.spec is not None
        own = {"pretrained": None, "lora_rank": None, "lora_alpha": None}
        own |= {} if self.length is None else {self.length: self.context}
        model = type(self)(**{**self.hparams, **own})
        model.build(self.spec)
        model.to(self.device, self.input_dtype)
        model.load_state_dict(plain_state(self))
        model.preprocessing, model.recipe = self.preprocessing, self.recipe
        return model.train(self.training)


def _is_folder(path: str) -> bool:
    """Whether it is a folder of Hugging Face."""
    return Path(path, "config.json").is_file()


def _vocabulary(spec: DataSpec) -> list[str] | None:
    return Tokenizer.from_json(spec.tokenizer).vocabulary if spec.tokenizer else None
