SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
# One after another: without LaTeX, `paper` stops before the set-up and before any measurement.
.NOTPARALLEL:
.PHONY: help setup tex paper arxiv publish gpu gpu-wheels check test compiled lint format lock dag clean

in_venv := source .venv/bin/activate

help:  ## Print this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile

setup: .venv/.stamp  ## Make .venv with the locked packages (PYTHON=... picks the interpreter)

.venv/.stamp: envs/lock.txt pyproject.toml
	@envs/setup.sh
	touch $@

tex:  ## Check that LaTeX is there; root on Debian gets it installed
	@envs/tex.sh

paper: tex setup  ## Measure what is not measured yet and build the paper (ARGS=... for Snakemake)
	@$(in_venv)
	snakemake --cores all paper $(ARGS)

arxiv: tex setup  ## Pack the paper's source into an archive that compiles alone
	@$(in_venv)
	snakemake --cores all arxiv $(ARGS)

RUN ?= laptop
publish: setup  ## Copy a run to results/published, to be kept in git (RUN=laptop)
	@$(in_venv)
	slay publish results/$(RUN) $(ARGS)
	slay published --write README.md

# A borrowed machine has neither .venv nor a network: Python there finds PyTorch and a few wheels.
gpu:  ## On a GPU lent for minutes: verify, test and time the kernels (ARGS=... for slay gpu)
	@if [[ -e .venv/bin/activate ]]; then $(in_venv); fi
	PYTHONPATH=.$${PYTHONPATH:+:$$PYTHONPATH} $${PYTHON:-python3} -m slay.cli gpu $(ARGS)

gpu-wheels: setup  ## Download what `make gpu` needs into build/wheels, to be taken along
	@$(in_venv)
	envs/gpu-wheels.sh build/wheels

QUICK := tests/attention/test_contract.py tests/features tests/tasks \
         tests/report/test_aggregate.py tests/report/test_latex.py tests/report/test_stats.py
check: setup  ## In a minute, what a change to a mechanism, a task or a table needs: style, quick tests
	@$(in_venv)
	ruff check; ruff format --check --quiet
	pytest -n 2 -q $(QUICK) $(ARGS)

test: tex setup  ## Run the tests (ARGS=... for pytest)
	@$(in_venv)
	pytest -n 2 --dist loadgroup $(ARGS)

compiled: setup  ## Compile all kernels after an edit of them: tests/ops/compiled.json (ten minutes)
	@$(in_venv)
	python tests/ops/compiled.py

lint: setup  ## Check style, types, layers and workflow
	@$(in_venv)
	echo "ruff"; ruff check; ruff format --check
	echo "mypy"; mypy
	echo "lint-imports"; lint-imports
	echo "snakefmt"; snakefmt --check Snakefile workflow examples
	echo "snakemake --lint"
	snakemake --lint
	snakemake --lint --snakefile examples/module/Snakefile

format: setup  ## Format the code and the workflow
	@$(in_venv)
	ruff check --fix; ruff format
	snakefmt Snakefile workflow examples

lock: setup  ## Write envs/lock.txt from pyproject.toml (ARGS=--upgrade takes newer versions)
	@$(in_venv)
	uv pip compile pyproject.toml --all-extras --quiet --output-file envs/lock.txt \
	    --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
	    --constraints envs/constraints.txt --excludes envs/excludes.txt \
	    --custom-compile-command "make lock" $(ARGS)

# Modules that everything imports, such as errors, would only add arrows.
BASE := errors|files|docstrings|yaml_files|epsilon|fields|registry|task_groups
dag: setup  ## Draw the rules of a run on a GPU and the package's layers: docs/*.svg
	@envs/graphviz.sh
	$(in_venv)
	snakemake all arxiv --quiet --config device=cuda --rulegraph dot | tred | dot -Grankdir=LR -Tsvg > docs/workflow.svg
	import-linter drawgraph slay | grep -vE '"\.($(BASE))"' | tred | dot -Tsvg > docs/layers.svg

clean:  ## Remove caches and build files, never results
	@rm -rf build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find slay tests workflow -name __pycache__ -prune -exec rm -rf {} +
