# make run     the main job: benchmark, choose, register, publish   (DATASET=milan-5x5 MIRROR=folder, ARGS="--set …")
# make test    the tests          make check   format, lint, types, imports
# make repro   the same chain under DVC       make soak    long repetitions
# make lock    resolve constraints.txt again  make clean   drop what runs have made
.PHONY: run test check format repro soak lock install clean
SHELL := /bin/bash
BIN := .venv/bin
DATASET ?= $(shell sed -nE 's/^dataset: *([^ \#]+).*/\1/p' params.yaml)
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# Compiled modules are kept, whatever the caller's habit: every step is a process that imports them.
export PYTHONDONTWRITEBYTECODE :=

run: install
	@$(BIN)/cellwright run --dataset $(DATASET) $(if $(MIRROR),--mirror $(MIRROR)) $(ARGS)

install:
	@scripts/install

.PHONY: install-dev
install-dev:
	@scripts/install dev

test: install-dev
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadgroup --no-loadscope-reorder $(ARGS)

soak: install-dev
	$(BIN)/python -m pytest -m "slow" --timeout 3600 $(ARGS)

check: install-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

repro: install
	@$(BIN)/cellwright replayable
	$(BIN)/dvc repro

# uv resolves all of it together; a torch build's local label (+cpu) is dropped, so that any build of that version fits.
lock:
	UV_FIND_LINKS="$(PIP_FIND_LINKS)" uv pip compile pyproject.toml --all-extras --python-version 3.11 --no-emit-index-url \
	  --no-emit-find-links --no-annotate --no-header --upgrade $(ARGS) -o constraints.txt
	sed -i -E 's/^(torch==[0-9.]+)\+[a-z0-9]+/\1/' constraints.txt

clean:
	rm -rf artifacts .cellwright/* data/raw data/panels data/validation
