# `make study` sets everything up in .venv and runs the main job; `make test` sets everything up and passes the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
OUT ?= out/study
TRACE ?=
PYTEST_WORKERS ?= 2
FUZZ_INPUTS ?= 28000
MUTANTS ?= 20
PACKAGES ?=
PROOFS ?=

.PHONY: study test test-long formal mutants lint types check-tools clean
.DELETE_ON_ERROR:

study: $(STAMP)
	$(BIN)/forestage study --out $(OUT) $(if $(TRACE),--trace $(TRACE))

test: lint types
	$(BIN)/python -m pytest -n $(PYTEST_WORKERS) --dist worksteal

# 36 fuzz tests of the importers share a million damaged inputs.
test-long: $(STAMP)
	$(BIN)/python -m pytest -m "long and not fuzz"
	FORESTAGE_FUZZ_INPUTS=$(FUZZ_INPUTS) $(BIN)/python -m pytest -m fuzz -n $(PYTEST_WORKERS) --dist worksteal tests/traces

# Proves the hardware's checks for all inputs, and plants faults in the circuits that the proofs must notice (minutes).
formal: $(STAMP)
	$(BIN)/forestage rtl prove $(PROOFS)

# Plants small faults and prints which share of them the tests notice (hours; goes on where it was interrupted).
mutants: $(STAMP)
	$(BIN)/python -m tests.mutants $(PACKAGES) --count $(MUTANTS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

# A missing tool is one line, not a traceback; the check runs only when something is to be installed.
check-tools:
	@command -v $(PYTHON) >/dev/null || { echo "forestage: $(PYTHON) not found: install Python >= 3.11 or pass PYTHON=/path/to/python3" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "forestage: $(PYTHON) is too old: Python >= 3.11 is needed (pass PYTHON=/path/to/python3)" >&2; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "forestage: Python's venv module is missing: install it (Debian: python3-venv)" >&2; exit 2; }
	@command -v g++ >/dev/null || { echo "forestage: g++ not found: a C++ compiler is needed for Verilator (Debian: g++)" >&2; exit 2; }

$(STAMP): pyproject.toml constraints.txt | check-tools
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --use-pep517 --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
	@touch $@

clean:
	rm -rf $(VENV) out build *.egg-info
