# `make demo` and `make test` need Python 3.11 or newer and make; all else goes into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
LOWEST := .venv-lowest
LOWEST_READY := $(LOWEST)/ready
PYTEST_OPTIONS := --numprocesses auto --maxprocesses 4 --dist loadfile --max-worker-restart 0

# Set by a developer's shell, these would point the demo and the checks at a real database.
OF_A_SHELL := $(filter-out AGENTOBS_TEST_% AGENTOBS_DATA_DIR,$(filter AGENTOBS_%,$(.VARIABLES)))
unexport $(OF_A_SHELL)

.PHONY: help
help: ## Show this help (PYTHON=python3.13 chooses the interpreter)
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "%-12s %s\n", $$1, $$2}'

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("agentobs needs Python 3.11 or newer, this is " + sys.version.split()[0] + ": make PYTHON=python3.13") if sys.version_info < (3, 11) else None'
	@echo "Installing into $(VENV): about a minute the first time."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

.PHONY: demo
demo: $(READY) ## Start a PostgreSQL, migrate, sync agents, write and read a workflow
	$(BIN)/alembic upgrade head
	$(BIN)/agentobs agents sync examples/agents
	$(BIN)/python -m examples.demo

.PHONY: test
test: $(READY) ## Run the whole suite on a real PostgreSQL
	$(BIN)/python -m pytest $(PYTEST_OPTIONS)

# A version that fails does not keep the others from their turn.
VERSIONS ?= 14 15 16 17 18
ON_EACH := cd tests && ../$(BIN)/python -m matrix

.PHONY: test-matrix
test-matrix: $(READY) ## Run the whole suite on PostgreSQL 14 to 18 (VERSIONS='14 17' chooses)
	$(ON_EACH) $(VERSIONS) -- $(BIN)/python -m pytest $(PYTEST_OPTIONS)

# For CI, in its time: where SQL, catalogs, plans and locks of ours meet the server.
OLDEST_TESTS := tests/test_bulk.py $(addprefix tests/, \
	maintenance/test_full_round.py maintenance/test_make_months.py maintenance/test_payload.py \
	maintenance/test_restore.py maintenance/test_retention.py migrations/test_adopt.py \
	migrations/test_adopt_repair.py \
	migrations/test_carried_catalog.py migrations/test_carried_rows.py \
	migrations/test_expected_catalogs.py migrations/test_granted_writer.py \
	migrations/test_online_upgrade.py migrations/test_online_writes.py migrations/test_partitions.py \
	migrations/test_upgrade_and_downgrade.py models rollups)

.PHONY: test-oldest
test-oldest: $(READY) ## Run the tests that depend most on the server on PostgreSQL 14
	$(ON_EACH) 14 -- $(BIN)/python -m pytest $(PYTEST_OPTIONS) $(OLDEST_TESTS)

# For CI, in its time: each library of `dependencies` and of the extras is used in one of these.
LOWEST_TESTS := $(wildcard tests/test_*.py) $(addprefix tests/, \
	analytics/test_analytics_weights.py analytics/test_tables.py cli/test_reading_commands.py \
	embedded/test_embedded_account.py examples/test_fastapi_service.py \
	maintenance/test_archive_folder.py maintenance/test_archive_round_trip.py \
	migrations/test_alembic_command.py migrations/test_autogenerate.py models \
	recorder/test_recorder_prometheus.py recorder/test_sanitize.py registry report/test_report_page.py \
	sessions/test_database_lifecycle.py sessions/test_engine.py sessions/test_error_words.py \
	sessions/test_stale_plans.py sessions/test_urls.py)

$(LOWEST_READY): $(READY)
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(LOWEST)
	$(BIN)/uv pip install --quiet --python $(LOWEST) --resolution lowest-direct --editable '.[dev]'
	@touch $@

.PHONY: test-lowest
test-lowest: $(LOWEST_READY) ## Run the tests of each library with the lowest versions allowed
	$(LOWEST)/bin/python -m pytest $(PYTEST_OPTIONS) $(LOWEST_TESTS)

.PHONY: check
check: $(READY) ## Lint, types, import layers, generated SQL, dependency audit, current docs
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	@mkdir -p build
	$(BIN)/agentobs db sql 0004 > build/upgrade.sql
	$(BIN)/agentobs db sql 0006:head >> build/upgrade.sql
	$(BIN)/squawk build/upgrade.sql
# These two rewrite the event tables, and keep writers out until they are done.
	$(BIN)/agentobs db sql 0004:0006 > build/rewrite.sql
	$(BIN)/squawk build/rewrite.sql --exclude require-statement-timeout,renaming-table,ban-drop-table,require-concurrent-index-creation,require-concurrent-index-deletion
	$(BIN)/python -m docs.generate --check
	$(BIN)/pip-audit --skip-editable --progress-spinner off --output build/audit.txt

.PHONY: bench
bench: $(READY) ## Measure, beside the floor in the same run
	$(BIN)/python -m benchmarks.migrations
	$(BIN)/python -m benchmarks.online_upgrade
	$(BIN)/python -m benchmarks.sessions
	$(BIN)/python -m benchmarks.ingest
	$(BIN)/python -m benchmarks.insert_crossing
	$(BIN)/python -m benchmarks.recorder
	$(BIN)/python -m benchmarks.recorder_calls
	$(BIN)/python -m benchmarks.growth
	$(BIN)/python -m benchmarks.retention
	$(BIN)/python -m benchmarks.maintenance_stalls
	$(BIN)/python -m benchmarks.rollups
	$(BIN)/python -m benchmarks.doctor

.PHONY: bench-large
bench-large: $(READY) ## The same for ten million rows in each event table; says what disk it takes
	$(BIN)/python -m benchmarks.rollups --rows 10000000
	$(BIN)/python -m benchmarks.growth --rows 10000000
	$(BIN)/python -m benchmarks.doctor --rows 10000000

.PHONY: docs
docs: $(READY) ## Write the pages that are made from the code
	$(BIN)/python -m docs.generate

.PHONY: clean
clean: ## Remove what make and the tools made here
	rm -rf $(VENV) $(LOWEST) build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
