# `make` lists the commands. `make demo` and `make test` do all set-up themselves, in .venv and target/ only.
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROFILE := release
export PYTHONPATH := python

.PHONY: help tools setup build demo test verify fix rust-test python-test planted wheel soak bench compare profile walk fuzz clean

help:
	@sed -n 's/^## //p' Makefile

## make demo    the whole way of a record on 20 generated patients, in build/demo
demo: build
	@rm -rf build/demo && mkdir -p build
	$(BIN)/python -m ehrfast.cli demo --dir build/demo

## make test    verify, the Rust tests, the Python tests, the planted faults
test: verify rust-test python-test planted

## make verify  formatting, lints and types; reads only
verify: build
	$(BIN)/ruff check python tests benches
	$(BIN)/mypy python/ehrfast
	$(BIN)/lint-imports --no-cache
	MYPYPATH=python $(BIN)/python -m mypy.stubtest ehrfast._core --allowlist tests/stubtest-allowlist.txt
	cargo fmt --check
	cargo clippy --locked --workspace --all-targets --profile $(PROFILE) -- -D warnings

## make fix     formats and repairs what verify complains about
fix: setup
	$(BIN)/ruff check --fix python tests benches
	cargo fmt

# The fuzz crate builds the core with X-Wing, so its tests run here too.
rust-test: tools
	cargo test --locked --profile $(PROFILE) -p ehrfast-core -p ehrfast-fuzz

## make fuzz    each decoder and verifier under libFuzzer for FUZZ_SECONDS=60; ONLY=target for one
fuzz: tools
	ONLY=$(ONLY) FUZZ_SECONDS=$(FUZZ_SECONDS) rust/fuzz/run

python-test: build
	$(BIN)/python -m pytest -q tests

## make planted breaks each guard in a copy, and demands that the tests see it
planted: build
	$(BIN)/python tests/planted/run.py --profile $(PROFILE)

## make soak    100,000 questions to consents, 2 GiB through each blob store and 20,000 lives of the crash simulation;
##              EHRFAST_SEEDS=n for another number, EHRFAST_SEED=n replays one
soak: build
	EHRFAST_CASES=100000 $(BIN)/python -m pytest -q tests/properties/test_consent_properties.py -k slow_reading
	EHRFAST_BINARY_MIB=2048 $(BIN)/python -m pytest -q tests/walk/test_blobs.py -k "memory or 2_gib"
	EHRFAST_SEEDS=$(or $(EHRFAST_SEEDS),20000) cargo test --locked --profile $(PROFILE) -p ehrfast-core --test suite store::crash::nothing

## make bench   the benchmarks, with their rivals in the same run; ONLY=row for one, QUICK=1 for a look, RESUME=1 goes on
bench: build
	QUICK=$(QUICK) LARGE=$(LARGE) $(BIN)/python -m benches.report run $(if $(ONLY),--only $(ONLY)) $(if $(RESUME),--resume)

## make compare two result files row by row; A=file B=file
compare: build
	@$(BIN)/python -m benches.report --compare $(A) $(B)

## make profile where the time of each benchmark goes, with flame graphs in build/profiles; ROW=row for one
profile: build
	$(BIN)/python -m benches.profile $(ROW)

## make walk    prints the way of one Observation through the stages, and writes docs/walk.md
walk: build
	$(BIN)/python tests/walk/follow.py

## make wheel   an abi3 wheel for CPython 3.11 and later, in dist/
wheel: setup
	$(BIN)/maturin build --locked --release --out dist

build: setup
	@$(BIN)/maturin develop --locked --profile $(PROFILE) --quiet

setup: tools $(VENV)/.installed

$(VENV)/.installed: requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --require-hashes -r requirements.lock
	@touch $@

tools:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "needs Python 3.11 or later: set PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' || { echo "needs Python's venv: apt-get install python3-venv"; exit 1; }
	@command -v cargo >/dev/null || { echo "needs Rust 1.90 or later: install rustup, then rustup toolchain install stable"; exit 1; }
	@command -v cc >/dev/null || { echo "needs a C compiler: apt-get install gcc"; exit 1; }

clean:
	rm -rf build dist target $(VENV)
