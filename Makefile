# make install | demo | test | test-all | test-plugins | lint | types | imports
#      matrix | bench | quote | comparison | docs | clean
# PYTHON=python3.12 chooses the interpreter, VENV=<dir> the environment (made when absent).
# On Linux the index's torch brings CUDA; TORCH_INDEX=https://download.pytorch.org/whl/cpu takes the small CPU build.

PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
PYTEST_ARGS ?=
DEMO ?= runs/demo-$(shell date +%Y%m%d-%H%M%S)

BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
	$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
REQUIREMENTS := pyproject.toml constraints.txt
# Of import_time memory control off_policy language time_to_reward (all when empty) and time_to_reward_sac.
# BENCH_ARGS=--go-on measures on a busy machine too.
BENCHMARKS ?=
BENCH_ARGS ?=
# Of the comparison of all methods: --jobs 1 leaves a core free, --output a folder where runs are already.
COMPARE_ARGS ?= --steps 30 --seeds 3

.PHONY: help install demo test test-all test-plugins test-trl test-verl lint types imports matrix bench quote comparison docs clean

help:
	@sed -n '1,4s/^# //p' Makefile

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("Ascent needs Python 3.11 or newer; pass PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(REQUIREMENTS) | $(BIN)/python
	$(INSTALL) -e .
	@touch $@

$(VENV)/.installed-%: $(REQUIREMENTS) | $(BIN)/python
	$(INSTALL) -e '.[$*]'
	@touch $@

install: $(VENV)/.installed-test

demo: $(VENV)/.installed
	$(BIN)/ascent train --method grpo --task arithmetic --output $(DEMO)

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .

types: $(VENV)/.installed-test
	$(BIN)/mypy

imports: $(VENV)/.installed-test
	$(BIN)/lint-imports

test: lint types imports
	$(BIN)/python -m pytest -m "not slow" $(PYTEST_ARGS)

test-all: lint types imports
	$(BIN)/python -m pytest $(PYTEST_ARGS)

# TRL and verl need different versions of transformers, so each has an environment of its own beside $(VENV).
PIP := -m pip install --quiet --disable-pip-version-check $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
TESTERS := pytest pytest-timeout hypothesis

$(VENV)-trl/.installed: $(REQUIREMENTS)
	$(PYTHON) -m venv $(VENV)-trl
	$(VENV)-trl/bin/python $(PIP) -c constraints.txt -e '.[trl,peft]' $(TESTERS)
	@touch $@

$(VENV)-verl/.installed: pyproject.toml constraints-verl.txt
	$(PYTHON) -m venv $(VENV)-verl
	$(VENV)-verl/bin/python $(PIP) -c constraints-verl.txt -e '.[verl]' $(TESTERS)
	@touch $@

test-trl test-verl: test-%:
	@if $(MAKE) --no-print-directory $(VENV)-$*/.installed; \
	then OMP_NUM_THREADS=1 $(VENV)-$*/bin/python -m pytest tests/plugins/test_$**.py $(PYTEST_ARGS); \
	else echo "make $@: skipped, because $* cannot be installed here; the lines above say why"; fi

test-plugins: test-trl test-verl

matrix: $(VENV)/.installed
	$(BIN)/python -m ascent.plugins.matrix > docs/matrix.md

bench: $(VENV)/.installed-bench
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/run.py $(BENCHMARKS) $(BENCH_ARGS)

quote: $(VENV)/.installed
	$(BIN)/python benchmarks/quote.py

comparison: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/ascent compare all --task arithmetic --page docs/comparison.md $(COMPARE_ARGS)
	$(BIN)/python -m ascent.evaluation.page README.md

docs: $(VENV)/.installed-docs
	$(BIN)/mkdocs build --strict

clean:
	rm -rf site build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
