# Everything a person does with the project. `make help` lists it.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
PYTHON ?= python3
BIN := .venv/bin
RUST_SOURCES := $(shell find rust -name '*.rs' -o -name Cargo.toml) Cargo.toml Cargo.lock

# Two OpenMP pools on shared cores starve each other.
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help build demo test test-slow test-rust test-python lint format bench proof tables clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

.venv/.installed: pyproject.toml $(RUST_SOURCES)
	test -d .venv || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

build: .venv/.installed ## make .venv, compile the Rust core, install Tamiyo and its tools there

demo: build ## train digits three times: healthy, with faults, with the same faults and Tamiyo
	$(BIN)/tamiyo demo

test: lint test-rust test-python ## check everything: formats, lints, types, stubs, Rust and Python tests

lint: build ## formats, lints and types, nothing changed
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked --quiet -- --deny warnings
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest tamiyo._core

test-rust: ## the Rust tests
	cargo test --workspace --locked --quiet

test-python: build ## the fast Python tests
	$(BIN)/pytest -m 'not slow'

test-slow: build ## the slow Python tests
	$(BIN)/pytest -m slow

target/peers/.installed: build
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target target/peers river==0.26.1 pytest-run-parallel==0.10.0 gromo==0.1.0
	touch $@

target/tools/bin/cargo-fuzz:
	cargo install cargo-fuzz@0.13.2 --locked --quiet --root target/tools

bench: target/peers/.installed ## measure ingest and its peers, hold it to benches/bars.toml, then the decision cycle
	PYTHONPATH=target/peers:benches $(BIN)/python benches/table.py --write $(if $(AGAINST),--against $(AGAINST))
	$(BIN)/pytest benches --benchmark-columns=min,median,max,ops

# How long `make proof` fuzzes.
FUZZ_SECONDS ?= 180

proof: target/peers/.installed target/tools/bin/cargo-fuzz ## a hundred million signals accounted for, the flood, threads, fuzzing
	cargo test --release --locked --quiet --package tamiyo-core --test stress --test cardinality -- --include-ignored --test-threads=1
	PROPTEST_CASES=20000 cargo test --release --locked --quiet --package tamiyo-core --test features --test wire --test filter --test sum_tree
	PYTHONPATH=target/peers $(BIN)/pytest tests/core --quiet --parallel-threads=4 --iterations=1
	mkdir -p target/fuzz/found
	cd fuzz && ../target/tools/bin/cargo-fuzz fuzz run ingest --sanitizer none --target-dir ../target/fuzz ../target/fuzz/found corpus/ingest -- -max_total_time=$(FUZZ_SECONDS) -max_len=4096 -timeout=1 -rss_limit_mb=512 -print_final_stats=1 -verbosity=0

format: build ## bring Rust and Python into shape
	cargo fmt --all
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

tables: build ## write the generated tables into the documents
	$(BIN)/python docs/tables.py

clean: ## remove what was built
	rm -rf .venv target build .pytest_cache .mypy_cache .ruff_cache
