"""The weights that travel with the package, made: `python -m zoo.training.shipping [MODEL/NAME …]`.

Each is trained by its command, written to `zoo/weights`, read back, and asked for its metrics, which go into the index.
Files of data are looked for in `../shared/data`; the index names them by what they are called there.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from zoo.data.registry import create_data
from zoo.errors import ZooError
from zoo.training.cards import card
from zoo.training.checkpoint import load_model, write_whole
from zoo.training.evaluation import evaluate
from zoo.training.run_config import read_config
from zoo.training.shipped import FOLDER, read_shipped
from zoo.training.weight_files import write_weights

__all__ = ["SHIPPED", "Shipment", "metrics_of", "ship"]

DATA = Path(__file__).parents[3] / "shared" / "data"


class Shipment(NamedTuple):
    """What is trained.

    Attributes:
        arguments: those of train.py.
        licence: of the weights, that of the data where it asks for the same.
        source: where the data are from.
    """

    arguments: str
    licence: str
    source: str


_SKLEARN = "scikit-learn's bundled sets (UCI, CC BY 4.0)"
_OWN = "made by the zoo"
SHIPPED = {
    "linear_regression/diabetes": Shipment("model=linear_regression", "apache-2.0", _SKLEARN),
    "logistic_regression/breast_cancer": Shipment("model=logistic_regression", "apache-2.0", _SKLEARN),
    "mlp/digits": Shipment("model=mlp trainer.max_epochs=30", "apache-2.0", _SKLEARN),
    "cnn/digits": Shipment("model=cnn trainer.max_epochs=20", "apache-2.0", _SKLEARN),
    "cnn/mnist": Shipment(
        "model=cnn data=mnist data.root={DATA} model.channels=[8,16,32] trainer.max_epochs=1",
        "cc-by-sa-3.0", "MNIST (LeCun, Cortes, Burges), CC BY-SA 3.0",
    ),
    "pca/digits": Shipment("model=pca model.num_components=16", "apache-2.0", _SKLEARN),
    "kmeans/digits": Shipment("model=kmeans data=digits model.num_clusters=10", "apache-2.0", _SKLEARN),
    "naive_bayes/wine": Shipment("model=naive_bayes", "apache-2.0", _SKLEARN),
    "decision_tree/iris": Shipment("model=decision_tree", "apache-2.0", _SKLEARN),
    "random_forest/digits": Shipment("model=random_forest model.num_trees=20", "apache-2.0", _SKLEARN),
    "gradient_boosting/breast_cancer": Shipment("model=gradient_boosting", "apache-2.0", _SKLEARN),
    "svm/breast_cancer": Shipment("model=svm", "apache-2.0", _SKLEARN),
    "kernel_svm/digits": Shipment("model=kernel_svm data=digits", "apache-2.0", _SKLEARN),
    "lstm/digits_rows": Shipment("model=lstm trainer.max_epochs=20", "apache-2.0", _SKLEARN),
    "draw/digits": Shipment("model=draw trainer.max_epochs=15", "apache-2.0", _SKLEARN),
    "transformer_encoder/digits": Shipment("model=transformer_encoder trainer.max_epochs=20", "apache-2.0", _SKLEARN),
    "seq2seq/dates": Shipment("model=seq2seq model.hidden_size=64 trainer.max_epochs=5", "apache-2.0", _OWN),
    "gpt/tinyshakespeare": Shipment(
        "model=gpt data=text_file data.path={DATA}/text/tinyshakespeare.txt data.sequence_length=64 "
        "model.hidden_size=96 model.num_layers=3 trainer.max_steps=1500",
        "apache-2.0", "tiny Shakespeare (karpathy/char-rnn), public domain",
    ),
    "ntm/copy": Shipment("model=ntm experiment=ntm_copy", "apache-2.0", _OWN),
    "word2vec/text8": Shipment(
        "model=word2vec data=text_file data.path={DATA}/text/text8_first10M.txt.xz data.tokenizer=word "
        "data.vocab_size=4000 data.sequence_length=1000 data.batch_size=32 model.embedding_size=50",
        "cc-by-sa-3.0", "text8 (Wikipedia), CC BY-SA 3.0",
    ),
    "apriori/groceries": Shipment(
        "model=apriori data=baskets data.path={DATA}/baskets/groceries.csv data.test_fraction=0.2 "
        "model.min_support=0.005 model.min_confidence=0.2",
        "apache-2.0", "Groceries (stedy/Machine-Learning-with-R-datasets), public domain",
    ),
    "bisecting_kmeans/digits": Shipment(
        "model=bisecting_kmeans data=digits model.num_clusters=10", "apache-2.0", _SKLEARN
    ),
    "agglomerative_clustering/iris": Shipment("model=agglomerative_clustering data=iris", "apache-2.0", _SKLEARN),
    "one_class_svm/digits": Shipment("model=one_class_svm data=digits model.nu=0.05", "apache-2.0", _SKLEARN),
}  # fmt: skip


def train(arguments: Sequence[str]) -> int:
    """Run train.py; return the exit code."""
    return subprocess.run([sys.executable, "-m", "zoo", "train", *arguments], stdout=subprocess.DEVNULL).returncode


def ship(key: str, train: Callable[[Sequence[str]], int] = train) -> dict[str, Any]:
    """Train what a key names, write its weights, and return what the index says of them."""
    shipment = SHIPPED[key]
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder, "run")
        arguments = shlex.split(shipment.arguments.replace("{DATA}", str(DATA)))
        if train([*arguments, f"run_dir={run}", "trainer.accelerator=cpu"]):
            raise ZooError(f"{key} was not trained.")
        model, data = load_model(run), read_config(run / "config.yaml")["data"]
    file = FOLDER / f"{key.replace('/', '-')}.safetensors"
    write_weights(model, file)
    data = {k: v.replace(str(DATA), "{DATA}") if isinstance(v, str) else v for k, v in data.items()}
    about: dict[str, Any] = {
        "file": file.name,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "bytes": file.stat().st_size,
        "data": data,
        "licence": shipment.licence,
        "source": shipment.source,
        "command": f"python train.py {shipment.arguments.replace('{DATA}', '../shared/data')}",
    }
    known = index_now()
    write_index({**known, key: about})
    about["metrics"] = metrics_of(key, DATA)
    write_index({**known, key: about})
    text = card(model, {**about, "place": key}, about["bytes"])
    write_whole(FOLDER / f"{key.replace('/', '-')}.md", lambda out: out.write(text.encode()))
    print(f"{key}: {about['bytes']:,} bytes, {about['metrics']}", flush=True)
    return about


def metrics_of(key: str, data_folder: Path) -> dict[str, float]:
    """Return the metrics of weights that travel with the package, on the test rows of the data that they know."""
    model = read_shipped(key)
    options = dict(index_now()[key]["data"])
    options = {k: v.replace("{DATA}", str(data_folder)) if isinstance(v, str) else v for k, v in options.items()}
    data = create_data(options.pop("name"), **options)
    data.takes_missing, data.kinds = model.takes_missing, model.entry.kinds
    data.follow(model.preprocessing, model.spec.tokenizer if model.spec else None)
    split = "test" if data.has("test") else "train"
    return {f"{split}/{key}": value for key, value in evaluate(model, data, split=split, device="cpu").items()}


def index_now() -> dict[str, Any]:
    return json.loads((FOLDER / "index.json").read_text(encoding="utf8"))


def write_index(content: dict[str, Any]) -> None:
    from zoo.training.shipped import index

    text = json.dumps(dict(sorted(content.items())), indent=2) + "\n"
    write_whole(FOLDER / "index.json", lambda out: out.write(text.encode()))
    index.cache_clear()


if __name__ == "__main__":
    for wanted in sys.argv[1:] or SHIPPED:
        ship(wanted)
