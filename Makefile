# Everything starts from here, on a fresh Debian too: `make demo`, `make test`, `make lint`, `make compat`, `make chaos`,
# `make bench`, `make clean`.
# Each target first makes what it needs (.venv, dependencies, the compiled data plane) and only what is out of date.
#
#   PYTHON=python3.12 make test          another Python (3.11 or newer)
#   make demo ARGS="--port 0"            arguments for the command behind a target

PYTHON ?= python3
VENV   := .venv
ARGS   ?=
BIN    := $(VENV)/bin

RELAY_SOURCES := $(shell find pgamb -name '*.pyx' -o -name '*.pxd')

.PHONY: help demo test lint compat chaos bench build clean check-system
.DEFAULT_GOAL := help

help:
	@echo "make demo    a real cluster on this machine, with an ambassador before it     (ARGS=\"--port 0\")"
	@echo "make test    every test                                                       (ARGS=\"tests/unit -k wire\")"
	@echo "make lint    format, lint, types, layers"
	@echo "make compat  other people's suites, direct and through pgamb                  (ARGS=\"--short\")"
	@echo "make chaos   a cluster under load, broken in every way                        (ARGS=\"--rounds 3\")"
	@echo "make bench   pgamb beside PgBouncer                                           (ARGS=\"--rounds 3\")"
	@echo "make build   the virtual environment and the compiled data plane, nothing else"
	@echo "make clean   remove all that the others made"

demo: $(VENV)/.compiled
	$(BIN)/python -m pgamb demo $(ARGS)

# Whoever may not write here (root made all of this, another user tests it) gives hypothesis another place to remember in.
test: $(VENV)/.compiled $(VENV)/.developing
	@test -w . || export HYPOTHESIS_STORAGE_DIRECTORY="$${TMPDIR:-/tmp}/hypothesis-$$(id -u)"; \
	echo $(BIN)/python -m pytest $(ARGS); $(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/.compiled $(VENV)/.developing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --strict
	PATH="$(CURDIR)/$(BIN):$$PATH" cython-lint pgamb
	$(BIN)/python -m pytest -q tests/unit/test_architecture.py

compat: $(VENV)/.compiled $(VENV)/.developing
	@$(BIN)/python -m tests.compat $(ARGS)

chaos: $(VENV)/.compiled $(VENV)/.developing
	@$(BIN)/python -m tests.chaos $(ARGS)

bench: $(VENV)/.compiled $(VENV)/.developing
	$(BIN)/python -m tests.bench $(ARGS)

build: $(VENV)/.compiled

clean:
	rm -rf $(VENV) build .build .bench .compat .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache \
	    pgamb.egg-info
	find pgamb tests -name __pycache__ -prune -exec rm -rf {} +
	find pgamb -name '*.pyx' | while read -r source; do \
	    rm -f "$${source%.pyx}.c" "$${source%.pyx}".*.so "$${source%.pyx}.html"; done

# --- How it is made. Stamps live in .venv, so that removing it starts everything anew. -------------------------------

# Two makes at once (the demo in one terminal, the tests in another) take turns at installing and compiling.
LOCKED := mkdir -p .build && flock .build/lock env PYTHONWARNINGS=ignore
PIP    := @$(LOCKED) $(BIN)/python -m pip install --quiet --disable-pip-version-check --root-user-action=ignore
# Cython translates in processes, gcc compiles in threads; each does only what is out of date. pip finds it done.
COMPILE := @echo "compiling the data plane"; \
	$(LOCKED) $(BIN)/cythonize --quiet --parallel 2 $(filter %.pyx,$(RELAY_SOURCES)) && \
	$(LOCKED) $(BIN)/python -c 'from setuptools import setup; setup()' --quiet build_ext --inplace --parallel 2
CHECK  := @$(MAKE) --no-print-directory check-system

VERSION := -c 'import sys; print("%d.%d" % sys.version_info[:2])'

# A Python that is named on the command line or in the environment replaces a .venv made with another one.
ifneq ($(origin PYTHON),file)
ifneq ($(wildcard $(BIN)/python),)
ifneq ($(shell $(BIN)/python $(VERSION) 2>/dev/null),$(shell $(PYTHON) $(VERSION) 2>/dev/null))
.PHONY: $(VENV)/.created
CLEAR := --clear
endif
endif
endif

# Says what is missing, with the one line that mends it, before pip could fail halfway.
check-system:
	@command -v $(PYTHON) >/dev/null || { \
	    case $(PYTHON) in python3) mend="python3 python3-dev python3-venv gcc" ;; *) mend="$(notdir $(PYTHON)) gcc" ;; esac; \
	    echo "make: $(PYTHON) is not installed; run:  apt-get install -y $$mend" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "make: $(PYTHON) is older than 3.11 or does not start; name another:  make PYTHON=python3.12" >&2; exit 2; }
	@missing=; name=$(notdir $(PYTHON)); \
	cc=$${CC:-$$($(PYTHON) -c 'import sysconfig; print((sysconfig.get_config_var("CC") or "gcc").split()[0])')}; \
	include=$$($(PYTHON) -c 'import sysconfig; print(sysconfig.get_path("include"))'); \
	command -v $$cc >/dev/null || missing="$$missing gcc"; \
	test -e "$$include/Python.h" || missing="$$missing $$name-dev"; \
	if test -z "$$missing" && ! echo '#include <Python.h>' | $$cc -I"$$include" -fsyntax-only -x c - 2>/dev/null; then \
	    missing=" libc6-dev"; \
	fi; \
	$(PYTHON) -c 'from ensurepip import version' 2>/dev/null || missing="$$missing $$name-venv"; \
	test -z "$$missing" || { \
	    echo "make: missing on this machine:$$missing; run:  apt-get install -y$$missing" >&2; exit 2; }
	@test ! -e $(VENV) || test -w $(VENV) || { \
	    echo "make: $(VENV) is out of date and belongs to $$(stat -c %U $(VENV)); let that user run make, or remove it" >&2; \
	    exit 2; }

$(VENV)/.created:
	$(CHECK)
	@$(LOCKED) sh -c 'if test -n "$(CLEAR)" || ! test -x $(BIN)/pip; then $(PYTHON) -m venv --clear $(VENV); fi'
	@touch $@

# pip 25.1 is the first that knows dependency groups. The build's own requirements stay installed, so that compiling
# again needs no network.
$(VENV)/.installed: pyproject.toml $(VENV)/.created
	$(CHECK)
	@echo "installing what pgamb needs into $(VENV)"
	$(PIP) 'pip>=25.1' 'setuptools>=77' 'Cython>=3.1'
	$(COMPILE)
	$(PIP) --no-build-isolation --editable '.[demo]'
	@touch $@

$(VENV)/.developing: pyproject.toml $(VENV)/.created | $(VENV)/.installed
	@echo "installing what its tests and checks need"
	$(PIP) --group test --group lint
	@touch $@

$(VENV)/.compiled: $(RELAY_SOURCES) $(VENV)/.installed
	$(CHECK)
	$(COMPILE)
	@touch $@
