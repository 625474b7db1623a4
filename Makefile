# `make demo`, `make test` and `make docs` do all their own set-up: a virtual environment in .venv with the package installed in it.
PYTHON ?= python3
BIN := .venv/bin
# OpenMP's threads spin while they wait, which on few cores starves the data loaders.
export GOMP_SPINCOUNT ?= 1000

.PHONY: demo test docs clean

demo: .venv/demo.stamp  ## every stage on the synthetic devkit: a table and a folder of pictures in runs/quickstart
	$(BIN)/ssdd devkit runs/quickstart/devkit --num_train 200 --num_val 60
	$(BIN)/ssdd run experiments/quickstart --root runs/quickstart/devkit --out runs/quickstart

test: .venv/test.stamp  ## lint, types, rooms, tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -n auto

docs: .venv/docs.stamp  ## the site in site/, with executed notebooks; any warning is an error
	$(BIN)/mkdocs build --strict

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/demo.stamp: setup.cfg pyproject.toml | .venv/bin/python
	$(BIN)/pip install --quiet --editable '.[offline]'
	touch $@

.venv/test.stamp: setup.cfg pyproject.toml | .venv/bin/python
	$(BIN)/pip install --quiet --editable '.[offline,coco,dev]'
	touch $@ .venv/demo.stamp

.venv/docs.stamp: setup.cfg pyproject.toml | .venv/bin/python
	$(BIN)/pip install --quiet --editable '.[offline,docs]'
	touch $@ .venv/demo.stamp

clean:  ## remove what the commands above made
	rm -rf .venv runs/quickstart site
