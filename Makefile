# What is done with this repository, by a person or by a machine. `make` lists it.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# As many open files as a strict account has: whatever holds more fails here, not at a user's.
FEW_FILES := ulimit -n 256;
# Two processes, a file of tests in one of them; one thread for each library of each.
PYTEST = $(FEW_FILES) OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 \
  $(PYTHON) -m pytest --numprocesses 2 --dist loadfile
.PHONY: help venv demo test test-all fuzz lint format docs clean

PYTHON3 ?= python3
VENV ?= .venv
PYTHON := $(VENV)/bin/python
STAMP := $(VENV)/.installed
PIP := $(PYTHON) -m pip --disable-pip-version-check --no-input

# An editable install points to where it was made: a copied or renamed folder installs again.
ifneq ($(file <$(STAMP)),$(CURDIR))
$(STAMP): FORCE
FORCE:
endif

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/:.*## /\t/' | expand -t 10

venv: $(STAMP) ## make .venv with the versions of requirements/tested.txt and mmvlr itself

# The stamp is written last, so that whatever is interrupted is done again.
$(STAMP): requirements/tested.txt requirements/tested-no-deps.txt setup.py
	@rm -f $@
	@command -v "$(PYTHON3)" > /dev/null \
	  || { echo 'make: $(PYTHON3) is not installed; Python 3.11 or newer is needed' >&2; exit 1; }
	@"$(PYTHON3)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make: requirements/tested.txt needs Python 3.11 or newer, $(PYTHON3) is" \
	    "$$("$(PYTHON3)" -c 'import platform; print(platform.python_version())')." >&2; \
	  echo '      Name another one: make venv PYTHON3=python3.11' >&2; exit 1; }
	@"$(PYTHON3)" -c 'import ensurepip, venv' 2> /dev/null || { \
	  echo 'make: $(PYTHON3) cannot make virtual environments; install its venv module' \
	    '(Debian: apt-get install python3-venv)' >&2; exit 1; }
	@$(PYTHON) -m pip --version > /dev/null 2>&1 || "$(PYTHON3)" -m venv --clear $(VENV)
	@echo 'Installing requirements/tested.txt into $(VENV): 2 to 5 minutes and 6 GB the first time.'
	@$(PIP) install --quiet --requirement requirements/tested.txt
	@$(PIP) install --quiet --no-deps --requirement requirements/tested-no-deps.txt
	@$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@$(PYTHON) -c 'import cv2' || { \
	  echo 'make: OpenCV lacks libraries of the system (Debian: apt-get install libgl1' \
	    'libglib2.0-0)' >&2; exit 1; }
	@printf %s "$(CURDIR)" > $@

demo: $(STAMP) ## train, test and report on embedded synthetic faces, without a download
	$(FEW_FILES) $(PYTHON) tools/demo.py

test: lint ## lint, then run the tests that are not slow; ARGS='tests/models -x' goes to pytest
	$(PYTEST) -m 'not slow' $(ARGS)
	@echo 'The tests marked slow were left out: make test-all runs all.'

test-all: lint ## lint, then run all tests; ARGS as above
	$(PYTEST) $(ARGS)

fuzz: $(STAMP) ## read malformed files of all kinds for an hour; ARGS='--readers image --jobs 2'
	$(PYTHON) -m tests.fuzz --seconds 3600 $(ARGS)

lint: $(STAMP) ## check style and format
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check

format: $(STAMP) ## mend what can be mended of style and format
	$(PYTHON) -m ruff check --fix
	$(PYTHON) -m ruff format

docs: $(STAMP) ## build the documentation into docs/_build/html; a warning is an error
	$(PYTHON) -m sphinx --quiet --fail-on-warning --keep-going -b html docs docs/_build/html
	@echo 'docs/_build/html/index.html'

clean: ## delete what was built; keeps .venv, data, checkpoints and work_dirs
	rm -rf build dist *.egg-info docs/_build docs/api/generated .pytest_cache .ruff_cache .hypothesis
	find mmvlr configs tools tests docs -name __pycache__ -type d -prune -exec rm -rf {} +
