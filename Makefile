# `make demo` and `make test` do everything from a fresh clone: environment, install, work.

PYTHON ?= python3.11
BIN := .venv/bin
DEMO ?= demo

.PHONY: demo test slow lint format clean

demo: .venv/demo
	rm -rf $(DEMO)
	$(BIN)/multipert demo --out $(DEMO)

test: .venv/test
	$(BIN)/pytest -n 2

slow: .venv/test
	$(BIN)/pytest -n 0 -m slow

lint: .venv/test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/test
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf .venv $(DEMO) dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

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
