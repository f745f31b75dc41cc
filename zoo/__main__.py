"""`python -m zoo train model=mlp`, and so on: what the command `zoo` does."""

import sys

from zoo.training.main import main

if __name__ == "__main__":
    sys.exit(main())
