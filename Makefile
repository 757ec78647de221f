# Two commands matter: `make up` runs the whole stack on this machine, `make test` proves it. Both install what they need.
.DEFAULT_GOAL := help
# What of the caller's could have Python run other code than this project's.
unexport PYTHONPATH PYTHONHOME PYTHONSTARTUP PYTHONOPTIMIZE PYTHONWARNINGS PYTHONPLATLIBDIR
PYTHON3 ?= python3
PYTHON := .venv/bin/python
PIP := $(PYTHON) -m pip install --quiet --disable-pip-version-check
PACKAGES := tickhouse producer spark_jobs orchestration tests docs examples bench

help:
	@echo "make up      run the whole stack on this machine, until Ctrl-C; installs what is missing"
	@echo "make test    prove it: unit, integration, Dagster and end-to-end tests"
	@echo "make setup   install all that the tests, the examples and the other tools need, as well"
	@echo "make check   format, types, imports, unused code, dependencies, secrets"
	@echo "make chaos, make soak, make bench   break it, feed it garbage, measure it: see docs/"
	@echo
	@echo "Options go in ARGS: make up ARGS=\"--source simulator --symbols BTCUSDT,ETHUSDT\""
	@echo "What is running is asked with .venv/bin/tickhouse: status, sql, replay, down, --help"

.venv/.run: requirements.txt pyproject.toml
	@$(PYTHON3) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed; name one with PYTHON3=…")'
	@echo "Installing Python packages into .venv (a minute or two the first time)"
	@$(PYTHON3) -m venv .venv
	@$(PIP) --require-hashes -r requirements.txt
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

.venv/.test: .venv/.run requirements-dev.txt
	@echo "Installing what the tests need"
	@$(PIP) --require-hashes -r requirements-dev.txt
	@touch $@

tools: .venv/.run
	@$(PYTHON) -m orchestration.local

# Without a browser the tests of pages are left out, and say so.
browser:
	@if command -v chromedriver >/dev/null; then :; \
	elif command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
		echo "Installing Chromium for the tests of pages"; \
		apt-get -qq update && apt-get -qq install --yes --no-install-recommends chromium chromium-driver >/dev/null \
			|| echo "Chromium could not be installed: the tests of pages are left out"; \
	else echo "No Chromium with chromedriver (Debian: chromium, chromium-driver): the tests of pages are left out"; fi

# Without FUSE the tests of power cuts are left out, and say so.
fuse: .venv/.test
	@if $(PYTHON) -c 'import pyfuse3' 2>/dev/null; then :; \
	elif command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
		echo "Installing FUSE for the tests of power cuts"; \
		{ apt-get -qq update && apt-get -qq install --yes --no-install-recommends gcc libfuse3-dev fuse3 pkg-config >/dev/null \
			&& $(PIP) --no-deps --require-hashes -r tests/chaos/requirements.txt; } \
			|| echo "FUSE could not be installed: the tests of power cuts are left out"; \
	else echo "No pyfuse3 (Debian: libfuse3-dev, fuse3, pkg-config): the tests of power cuts are left out"; fi

setup: .venv/.test tools

# Options go in ARGS: make up ARGS="--source simulator --port 0"
up: tools
	@.venv/bin/tickhouse up $(ARGS)

# Modules two at a time, as much of the time is spent waiting; then what takes the whole machine, one after the other.
# ARGS that choose tests may choose none of either kind, which pytest answers with 5.
test: setup browser fuse
	$(PYTHON) -m pytest -m "not whole_machine" --numprocesses 2 --dist loadfile --no-loadscope-reorder $(ARGS) || [ $$? = 5 ]
	$(PYTHON) -m pytest -m whole_machine $(ARGS) || [ $$? = 5 ]

# Breaks a whole stack a hundred times and judges every result: make chaos SEED=7 ARGS="--faults 150"
chaos: setup fuse
	$(PYTHON) -m tests.chaos $(if $(SEED),--seed $(SEED)) $(ARGS)

# Ticks and garbage at a steady rate, all results compared at the end: make soak ARGS="--seconds 600 --rate 2000"
soak: setup
	$(PYTHON) -m bench.soak $(ARGS)

# This project and its peers on the same ticks, half an hour; a few minutes: make bench ARGS=--quick
bench: setup
	$(PYTHON) -m bench $(ARGS)

check: .venv/.test
	.venv/bin/ruff format --check $(PACKAGES)
	.venv/bin/ruff check $(PACKAGES)
	.venv/bin/mypy
	.venv/bin/lint-imports --no-cache
	.venv/bin/vulture
	.venv/bin/deptry .
	@# What is no secret though it looks like one says so at its line: "pragma: allowlist secret".
	git ls-files -z --cached --others --exclude-standard | xargs -0 .venv/bin/detect-secrets-hook
	$(PYTHON) -m tests.audit

.PHONY: help tools browser fuse setup up test chaos soak bench check
