"""A finished run in the browser: `python demo.py run=runs/cnn/digits/<time>` opens its page, for this machine alone."""

import sys

from zoo.training.main import demo

if __name__ == "__main__":
    sys.exit(demo())
