# Four commands, and a fifth for the patient. Each sets up what it needs in a virtual environment of its own.
#
#   make examine   open the bundled model on the classic pair of prompts; prints a summary, writes report.html
#   make test      the whole test suite
#   make check     style, format and types
#   make docs      the documentation as a site, in site/
#   make bench     side by side with bare Hugging Face, TransformerLens and nnsight (installs them, in an environment apart)

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= auto
BIN = $(VENV)/bin
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

CLEAN = When Mary and John went to the store, John gave a drink to
CORRUPT = When Mary and John went to the store, Mary gave a drink to

.PHONY: examine test check docs bench clean

examine: $(VENV)/.user
	$(BIN)/patchclamp examine specimen:town "$(CLEAN)" --against "$(CORRUPT)" --out report.html

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

docs: $(VENV)/.docs
	$(BIN)/python -m mkdocs build --strict

bench:
	bench/run.sh

clean:
	rm -rf $(VENV) site report.html

$(VENV)/.user: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) -e .
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) -e ".[dev]"
	touch $@

$(VENV)/.docs: $(VENV)/.dev
	$(INSTALL) -e ".[docs]"
	touch $@
