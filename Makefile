# make demo   segment the example slide with the bundled model and draw an overlay
# make test   format, lint, types and the whole test suite
# make lint   format, lint and types only
# make bench  the benchmarks, as one table
# make slurm  a one-node SLURM (Debian packages) and a job on it that is requeued in the middle
# make docs   docs/reference/cli.md from the commands' own help, and the README's picture
# make site   the documentation as a site in site/; a dead link is an error
#
# Each target prepares the virtual environment it needs; nothing is installed twice.

PYTHON ?= python3
VENV ?= .venv
# A file of tests at a time, so that what a file prepares is prepared once. The long files go first
# (tests/conftest.py). Three processes keep two cores busy, since tests also wait: for processes
# that they start and for deadlines.
PYTEST_ARGS ?= -n 3 --dist loadfile --no-loadscope-reorder
BIN := $(VENV)/bin
SLIDE := examples/CMU-1-Small-Region.svs
DEMO := demo/CMU-1-Small-Region

.DEFAULT_GOAL := help
.PHONY: help install demo test lint format bench slurm docs site clean

help:
	@sed -n '/^# make/s/^# //p' Makefile

# A stamp per group of dependencies: installed again only when what it was made from changes.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "error: $(PYTHON) is too old; say which Python 3.11+ to use: make PYTHON=python3.11 …" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# Groups of dependencies need pip 25.1, and a fresh environment may bring an older one.
$(VENV)/.pip: | $(BIN)/python
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/.package: pyproject.toml constraints.txt | $(VENV)/.pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(VENV)/.package
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group test
	@touch $@

$(VENV)/.bench: pyproject.toml constraints.txt | $(VENV)/.package
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group bench
	@touch $@

$(VENV)/.docs: pyproject.toml constraints.txt | $(VENV)/.package
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	@touch $@

install: $(VENV)/.package

demo: $(VENV)/.package
	@mkdir -p $(dir $(DEMO))
	@$(BIN)/wsi-unet segment $(SLIDE) --model nuclei-he --output $(DEMO).ome.zarr
	@$(BIN)/wsi-unet overlay $(DEMO).ome.zarr --output $(DEMO)-overlay.png

lint: $(VENV)/.test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Compiled once, not by each of the processes that tests start.
test: export PYTHONDONTWRITEBYTECODE =
test: lint
	$(BIN)/pytest $(PYTEST_ARGS)

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks

slurm: $(VENV)/.package
	@workflows/slurm/one_node.sh install
	$(BIN)/python workflows/slurm/trial.py $(SLIDE)

docs: demo
	$(BIN)/python docs/make_cli.py > docs/reference/cli.md
	$(BIN)/wsi-unet overlay $(DEMO).ome.zarr --output docs/images/overlay.png --size 1200

# The variable silences the notice that this generation of MkDocs ends in 2027.
site: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf demo build dist site .mypy_cache .pytest_cache .ruff_cache
