# Each target works on a fresh machine with Python 3.11, git and make.
SHELL := /bin/bash
PYTHON ?= python3
UV := $(shell command -v uv 2>/dev/null || echo .cache/uv/bin/uv)
RUN := $(UV) run --no-sync
PYTEST := OMP_NUM_THREADS=1 $(RUN) pytest -n 2 --dist loadgroup

.DEFAULT_GOAL := help
.PHONY: help install demo lint test test-slow docs serve clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(UV):
	$(PYTHON) -m venv .cache/uv
	.cache/uv/bin/pip install --quiet uv

install: $(UV)  ## install the whole workspace into .venv
	$(UV) sync --quiet --compile-bytecode --all-packages --all-extras --group docs

demo: install  ## the main job: train iTransformer and its baselines on real data, see its claims
	$(RUN) formers reproduce itransformer

lint: install  ## style and types
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy shared/*/src packages/*/src

test: lint docs  ## style, types, the whole suite and the site
	$(PYTEST)

test-slow: install  ## what takes minutes
	$(PYTEST) -m slow

docs: install  ## build the site into site/
	NO_MKDOCS_2_WARNING=1 $(RUN) mkdocs build --strict

serve: install  ## the site on http://127.0.0.1:8000, rebuilt on changes
	$(RUN) mkdocs serve

clean:  ## remove what was built
	rm -rf .cache .venv build dist site runs
