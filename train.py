"""Train a model of the zoo: `python train.py model=cnn data=digits`; `python train.py --help` shows the choices."""

import sys

from zoo.training.main import train

if __name__ == "__main__":
    sys.exit(train())
