# make test: a virtual environment, the native build, all tests.
PYTHON3 ?= python3
VENV := .venv

.PHONY: test build
test: build
	PATH=$(CURDIR)/$(VENV)/bin:$$PATH PYTHONPATH=python $(VENV)/bin/python -m pytest -q tests

build: $(VENV)/.ready
	PYTHON=$(CURDIR)/$(VENV)/bin/python bash ci/build.sh

$(VENV)/.ready:
	$(PYTHON3) -m venv $(VENV)
	$(VENV)/bin/pip install -q torch==2.13.0 numpy
	$(VENV)/bin/pip install -q pybind11 cmake ninja pytest pytest-timeout hypothesis click rich
	touch $@
