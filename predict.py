"""Predict new rows with a finished run: `python predict.py run=runs/mlp/iris/<time> data.path=new.csv output=out.csv`.

A file of its own beside evaluate.py: evaluation needs targets, writes into the run and prints metrics; this reads rows
without targets, leaves the run as it is, and its standard output is the answer itself.
"""

import sys

from zoo.training.main import predict

if __name__ == "__main__":
    sys.exit(predict())
