# Two commands matter: `make demo` and `make test`. Each sets up what it needs in .venv first.
PYTHON ?= python3
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export TRITON_CACHE_DIR := $(abspath $(VENV))/triton-cache

.PHONY: demo test compile-check bench clean

demo: $(READY)
	$(BIN)/trainwright check examples/tiny.toml
	$(BIN)/trainwright run examples/tiny.toml --yes
	@echo "report: $(CURDIR)/runs/tiny/report.html"

test: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy spec compiler runtime kernels src/trainwright/*.py
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile
	$(MAKE) compile-check

# Our kernels for sm_90, by the Triton that torch pins now and by the one it pinned before. No GPU is needed, and what
# was compiled once is not compiled again.
OTHER_TRITON := 3.6.0
compile-check: $(READY)
	$(BIN)/trainwright kernels compile-check
	@test -d $(VENV)/triton-$(OTHER_TRITON) || $(BIN)/python -m pip install --quiet --no-deps \
	  --target $(VENV)/triton-$(OTHER_TRITON) triton==$(OTHER_TRITON) \
	  || { rm -rf $(VENV)/triton-$(OTHER_TRITON); echo "triton $(OTHER_TRITON) cannot be installed: not checked with it"; }
	@test ! -d $(VENV)/triton-$(OTHER_TRITON) \
	  || PYTHONPATH=$(abspath $(VENV))/triton-$(OTHER_TRITON) $(BIN)/trainwright kernels compile-check

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
