# `make demo` and `make test` do everything from a fresh clone: environment, install, work.

PYTHON ?= python3.11
NEWER ?= python3.12
BIN := .venv/bin
DEMO ?= demo

CASES ?= 10000
SEED ?= 1

.PHONY: demo test slow fuzz coverage compat oldest docs lint format clean

demo: .venv/demo
	rm -rf $(DEMO)
	$(BIN)/multipert demo --out $(DEMO)

test: .venv/test
	$(BIN)/pytest -n 2

slow: .venv/test
	$(BIN)/pytest -n 0 -m slow

# Spoils files of cells, study files and run folders, and prints how the commands took it.
fuzz: .venv/test
	cd tests && ../$(BIN)/python -m fuzz --cases $(CASES) --seed $(SEED)

coverage: .venv/test
	$(BIN)/pytest -n 2 --cov --cov-report=term

# The fast tests on a newer Python with the newest release of everything (a torch of some gigabytes): nothing pinned.
compat: .venv-compat/test
	OMP_NUM_THREADS=1 .venv-compat/bin/pytest -n 2

# The demo with the oldest release of every dependency.
oldest: .venv-oldest/demo
	rm -rf $(DEMO)
	.venv-oldest/bin/multipert demo --out $(DEMO)

# The site, at build/docs/index.html: its tutorials are run, and a warning is an error.
docs: .venv/docs
	$(BIN)/python -m sphinx -W --keep-going -q docs build/docs

lint: .venv/test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/test
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf .venv .venv-compat .venv-oldest $(DEMO) dist build docs/reference .pytest_cache .mypy_cache .ruff_cache .hypothesis

# torch comes first and pinned: any other request for it would pull gigabytes of CUDA.
.venv/torch: constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv || python3 -m venv .venv
	$(BIN)/pip install --quiet $(shell grep '^torch==' constraints.txt)
	touch $@

.venv/demo: .venv/torch pyproject.toml
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	touch $@

.venv/test: .venv/demo
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[test,lint]'
	touch $@

.venv/docs: .venv/demo
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@

.venv-oldest/demo: pyproject.toml constraints-oldest.txt
	test -x .venv-oldest/bin/python || $(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/pip install --quiet $(shell grep '^torch==' constraints.txt)
	.venv-oldest/bin/pip install --quiet --constraint constraints-oldest.txt --editable .
	touch $@

.venv-compat/test: pyproject.toml
	test -x .venv-compat/bin/python || $(NEWER) -m venv .venv-compat
	.venv-compat/bin/pip install --quiet --upgrade --upgrade-strategy eager --editable '.[test]'
	touch $@
