# make run: the demo, with an embedded Redis and SQLite. make test: linter, types, tests. Neither needs another step first.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: run test test-servers scenarios faults fields lint bench bench-limiter requirements clean

run: .venv/installed
	@$(BIN)/python scripts/prepare.py
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/honcho start

# Three processes on two cores: the tests spend half of the time waiting for a window, a drain or a browser.
test: .venv/installed lint
	@$(BIN)/python -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder

# The tests that need a server, on seven versions of Redis, Valkey and Postgres: about an hour.
test-servers: .venv/installed
	@$(BIN)/python -m tests.each_server

# The limiter's properties, on 10,000 generated scenarios; `make test` runs some hundreds.
scenarios: .venv/installed
	@SCENARIOS=10000 $(BIN)/python -m pytest -q -s tests/limiter/test_scenarios.py

# Fleets that are killed, stopped, flushed and restarted by a seeded schedule: 20 seeds on both databases, about an hour.
faults: .venv/installed
	@$(BIN)/python -m tests.faults

# Random models and batches of rows, written together and row by row by the driver: 2,000 pairs on both databases.
fields: .venv/installed
	@$(BIN)/python -m tests.records.generated

lint: .venv/installed
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench: .venv/installed
	@$(BIN)/python benchmarks/import.py

# The limiter compared with other libraries, which are installed first.
bench-limiter: .venv/installed
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r benchmarks/requirements.txt
	@$(BIN)/python benchmarks/limiter.py

.venv/installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python %d.%d is too old for Sluice: install 3.11 or newer, or name one with make PYTHON=python3.12" % sys.version_info[:2])'
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "This Python has no venv: install it (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }
	@echo "Installing the pinned packages into .venv (about a minute, once)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	@touch $@

# After a change of requirements.in; needs uv on PATH.
requirements:
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url requirements.in -o requirements.txt

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache build dist *.egg-info
