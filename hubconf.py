"""Trained weights for `torch.hub`: `model = torch.hub.load(REPOSITORY, "cnn", pretrained="digits")`.

Each model of the zoo is an entry point; `pretrained` is a name of `zoo.list_pretrained()`, a file, a folder or a run.
"""

from zoo import create_model as _create_model
from zoo import list_models as _list_models

dependencies = ["torch", "lightning", "safetensors", "sklearn"]


def _entry(name):
    def create(pretrained=None, **hparams):
        return _create_model(name, pretrained=pretrained, **hparams)

    create.__doc__ = f"`{name}` of the zoo: zoo.create_model({name!r}, pretrained=…, **hyperparameters)."
    return create


globals().update({_name: _entry(_name) for _name in _list_models()})
