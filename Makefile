# Everything runs in .venv; a target with `##` shows up in `make help`.
.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.PHONY: help install quickstart test check lint format types contracts configs review test-all soak docs bench clean

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# One thread a process: on few cores, more are several times slower for models this small.
JOBS ?= 2
KILLS ?= 32
CASES ?= 10000
FLIPS ?= 8
export OMP_NUM_THREADS ?= 1

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(STAMP) ## Make .venv and install the package with everything for development

$(STAMP): pyproject.toml constraints.txt
	@if ! $(BIN)/python -c '' 2>/dev/null; then \
	  for python in $${PYTHON:-} python3 python3.11 python3.12 python3.13 python3.14 python; do \
	    if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$$python; break; fi; \
	  done; \
	  if [ -z "$${found:-}" ]; then echo "no Python >= 3.11 here; install one, or name it: make PYTHON=... install" >&2; exit 3; fi; \
	  echo "making $(VENV) with $$found ($$("$$found" --version))"; \
	  rm -rf $(VENV); "$$found" -m venv $(VENV); \
	fi
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

quickstart: install ## Grow, train, evaluate and compare a miniature lineage, and write its report
	$(BIN)/rembed quickstart

test: install ## Run the tests, without those marked slow
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m 'not slow'

test-all: install ## Run all tests, the slow ones too
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal

soak: install ## Kill training, evaluating, merging and sweeping at random moments (KILLS=32), fill disks, change 8 bytes of every file of a run (FLIPS=8), read 10,000 hostile files a reader (CASES=10000)
	SOAK_KILLS=$(KILLS) SOAK_FLIPS=$(FLIPS) FUZZ_CASES=$(CASES) $(BIN)/python -m pytest -n $(JOBS) --dist worksteal --timeout=1800 tests/end_to_end/test_soak.py tests/end_to_end/test_damage.py tests/end_to_end/test_full_disk.py tests/end_to_end/test_experiment.py::test_a_byte_of_any_file tests/end_to_end/test_sweep.py::test_a_byte_of_any_file tests/end_to_end/test_publish.py::test_a_byte_of_any_file tests/hostile/test_fuzz.py

check: lint types contracts configs review test ## Run everything a change must pass

lint: install ## Check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: install ## Rewrite the code in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: install ## Check types
	$(BIN)/ty check reasoning_embedding

contracts: install ## Check that imports between folders go one way
	$(BIN)/lint-imports

configs: install ## Check every configuration file
	$(BIN)/rembed config check configs

review: ## Print what to look at again: files over 500 lines, folders over 20 modules
	@echo "files over 500 lines:"
	@find reasoning_embedding benchmarks -name '*.py' -exec wc -l {} + | awk '$$1 > 500 && $$2 != "total" { print "  " $$1, $$2 }'
	@echo "folders over 20 modules:"
	@find reasoning_embedding benchmarks -name '*.py' | sed 's|/[^/]*$$||' | sort | uniq -c | awk '$$1 > 20 { print "  " $$1, $$2 }'

DOCS_STAMP := $(VENV)/.installed-docs

$(DOCS_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch $@

docs: $(DOCS_STAMP) ## Write the pages as a site into build/site; a link that leads nowhere is an error
	$(BIN)/mkdocs build --strict --quiet

# Speed is measured on all cores, on both sides.
bench: export OMP_NUM_THREADS := $(or $(THREADS),$(shell nproc 2>/dev/null || sysctl -n hw.ncpu))
bench: install ## Measure speed and memory against other libraries, and record it (FLAGS=--quick: small inputs)
	$(BIN)/python -m benchmarks all --output benchmarks/records $(FLAGS)

clean: ## Remove caches and build files; .venv and runs stay
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find reasoning_embedding benchmarks tests -name __pycache__ -type d -prune -exec rm -rf {} +
