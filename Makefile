# Every target sets up what it needs; nothing has to be done first.
.PHONY: demo test test-postgres lint bench rigs clean
.DEFAULT_GOAL := help

help:
	@echo "make demo   mirror real files from a folder and from a local S3 server"
	@echo "make test   lint, then every test, against emulators that it installs"
	@echo "make test-postgres  the tests, with every catalog on PostgreSQL"
	@echo "make lint   ruff and mypy"
	@echo "make bench  the speed and memory tables of docs/performance.md"

PY := .venv/bin/python
# The tests start hundreds of processes, and each would compile what it imports.
unexport PYTHONDONTWRITEBYTECODE

.venv/.ready: pyproject.toml scripts/venv.sh
	@scripts/venv.sh

rigs: .venv/.ready
	@scripts/rigs.sh

demo: .venv/.ready
	@$(PY) examples/demo.py

lint: .venv/.ready
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy

# Two workers must collect the same names, and some tests are named by sets: hence the fixed seed.
test: lint rigs
	@PYTHONHASHSEED=0 $(PY) -m pytest -n 3 --dist worksteal

# The same suite with every catalog on a PostgreSQL server that the tests start.
test-postgres: .venv/.ready rigs
	@SYNCAGENT_TEST_CATALOG=postgres PYTHONHASHSEED=0 $(PY) -m pytest -n 3 --dist worksteal

bench: .venv/.ready rigs
	@scripts/rclone.sh
	@$(PY) benchmarks/mirror.py
	@$(PY) benchmarks/listing.py
	@$(PY) benchmarks/listing_s3.py
	@$(PY) benchmarks/query.py
	@$(PY) benchmarks/rest.py
	@$(PY) benchmarks/check.py
	@$(PY) benchmarks/ingest.py
	@$(PY) benchmarks/postgres.py
	@$(PY) benchmarks/events.py
	@$(PY) benchmarks/coldstart.py

clean:
	rm -rf .venv .rigs .demo
