"""The site of the docs: `python -m website` builds it, `serve` shows it, `check` looks for what is amiss."""
