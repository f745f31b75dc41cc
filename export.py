"""Export a finished run for programs without the zoo: `python export.py run=runs/mlp/iris/<time> format=onnx`."""

import sys

from zoo.training.main import export

if __name__ == "__main__":
    sys.exit(export())
