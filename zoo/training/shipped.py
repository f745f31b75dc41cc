"""The trained weights that travel with the package.

`zoo/weights/index.json` says of each file that travels what it is: SHA-256, metrics, data, licence and the command that
made it.
"""

from __future__ import annotations

import fnmatch
import functools
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.checks import check_type
from zoo.errors import ZooError

if TYPE_CHECKING:
    from zoo.models.base import ZooModel

__all__ = ["check_digest", "index", "list_pretrained", "read_shipped"]

FOLDER = Path(__file__).parents[1] / "weights"


@functools.cache
def index() -> dict[str, dict[str, Any]]:
    """Return what is known of the weights that travel with the package, by `MODEL/NAME`."""
    return json.loads((FOLDER / "index.json").read_text(encoding="utf8"))


def list_pretrained(pattern: str = "*") -> list[str]:
    """Return the names of the weights that travel with the package, `MODEL/NAME`, that match a shell `pattern`.

    Example:
        >>> import zoo
        >>> zoo.list_pretrained("cnn/d*")
        ['cnn/digits']
    """
    return sorted(fnmatch.filter(index(), check_type("pattern", pattern, str)))


def read_shipped(key: str) -> ZooModel:
    """Return the model of weights that travel with the package, after checking their digest."""
    from zoo.training.weight_files import read_weights

    about = index()[key]
    path = FOLDER / about["file"]
    if not path.is_file():
        raise ZooError(f"The weights {key} are missing from this installation ({path}): install it anew.")
    check_digest(path, about["sha256"], "zoo/weights/index.json")
    return read_weights(path)


def check_digest(path: Path, wanted: str, by: str) -> None:
    """Raise one line unless a file has the SHA-256 that `by` says."""
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != wanted:
            raise ZooError(f"{path} was altered or truncated: its SHA-256 is not that of {by}. Use another.")
