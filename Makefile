# What a newcomer and the continuous integration type.
PYTHON := .venv/bin/python

.venv/.installed: requirements-dev.txt
	python3 -m venv .venv
	$(PYTHON) -m pip install --quiet --require-hashes -r requirements-dev.txt
	touch $@

setup: .venv/.installed

test: setup
	$(PYTHON) -m pytest

check: setup
	.venv/bin/ruff check spark_jobs tests
	.venv/bin/mypy spark_jobs

.PHONY: setup test check
