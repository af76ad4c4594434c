# make demo   the whole story on one machine, about two minutes; the report's path is printed at the end
# make test   build, checks, all tests
# make build | lint | bench | wheel | sanitize | clean
# On a fresh machine: Python >= 3.10, a C++20 compiler and git are enough; the rest comes into .venv.
PYTHON3 ?= python3
VENV ?= .venv
BIN := $(abspath $(VENV))/bin
TESTS ?= tests
export PYTHON := $(BIN)/python

.PHONY: demo test build lint bench wheel sanitize stubs format install clean
demo: build
	@$(BIN)/hpcore demo $(ARGS)

test: install
	@bash ci/test.sh $(TESTS)

install:
	@bash ci/install.sh $(PYTHON3) $(VENV)

build: install
	@bash ci/build.sh

lint: build
	@bash ci/checks.sh

bench: build
	@$(BIN)/hpcore bench recovery --quick

stubs: build
	@$(PYTHON) ci/stubs.py --write

format: install
	@bash ci/format.sh --write

wheel: install
	@bash ci/wheel.sh

sanitize: install
	@bash ci/sanitize.sh address && bash ci/sanitize.sh thread && bash ci/sanitize.sh c10d

clean:
	rm -rf build dist $(VENV) python/hpcore/*.so python/hpcore/_version.py
