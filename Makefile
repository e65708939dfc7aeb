# Two commands matter: `make demo` and `make test`. Each sets up what it needs in .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test lint bench clean

demo: $(READY)
	$(BIN)/trainwright check examples/tiny.toml
	$(BIN)/trainwright run examples/tiny.toml --yes
	@echo "report: $(CURDIR)/runs/tiny/report.html"

test: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy spec compiler runtime kernels src/trainwright/*.py
	$(BIN)/python -m pytest -q

bench: $(READY)
	$(BIN)/python bench/throughput.py

# torch first and pinned: a bare `torch` would bring several GB of CUDA packages to a machine without a GPU.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[train,dev]'
	touch $(READY)

clean:
	rm -rf $(VENV) runs
