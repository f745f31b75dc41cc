"""Evaluate a finished run: `python evaluate.py run=runs/cnn/digits/<time>` writes metrics, predictions and pictures."""

import sys

from zoo.training.main import evaluate

if __name__ == "__main__":
    sys.exit(evaluate())
