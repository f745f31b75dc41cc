# make train ARGS="model=kmeans"   make test   make lint
PYTHON ?= python3
BIN := .venv/bin
ARGS ?=

.PHONY: train evaluate test test-all lint format bench docs docs-serve clean

# The installation compiles the kernels.
.venv/.installed: pyproject.toml $(wildcard zoo/kernels/*.[ch])
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

.venv/.installed-dev: .venv/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch $@

.venv/.installed-docs: .venv/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[docs]"
	touch $@

# MathJax, which sets the formulas of the site; with it `make docs` needs no network.
website/node_modules: website/package.json
	npm install --prefix website --no-package-lock --no-audit --no-fund --silent
	touch $@

train: .venv/.installed
	$(BIN)/python train.py $(ARGS)

evaluate: .venv/.installed
	$(BIN)/python evaluate.py $(ARGS)

test: .venv/.installed-dev
	$(BIN)/python -m pytest -n logical --dist loadfile --no-loadscope-reorder $(ARGS)

# Long trainings, every pair of model and data, kills and fuzzing with many examples, too.
test-all: .venv/.installed-dev
	$(BIN)/python -m pytest -n logical --dist loadfile --no-loadscope-reorder -m "" $(ARGS)

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/.installed-dev
	$(BIN)/python -m benchmarks $(ARGS)

docs: .venv/.installed-docs website/node_modules
	$(BIN)/python -m website

docs-serve: .venv/.installed-docs website/node_modules
	$(BIN)/python -m website serve

clean:
	rm -rf build dist site *.egg-info .venv/.installed .venv/.installed-dev .venv/.installed-docs
