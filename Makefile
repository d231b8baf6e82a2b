# make repro   the whole pipeline on the embedded data    make test    all tests
# make quick   tests without pipeline runs                 make check   lint, format, types
# make bench   training, evaluation, corruptions, timed    make docs    docs/parameters.md and the schema
# make site    site/, the documentation to be read         make tour    docs/tour.ipynb, run again
# Any of them makes .venv from requirements.txt first, if needed. PYTHON and VENV can be set: make test PYTHON=python3.12
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Stages call `python`; it must be the one of the environment, activated or not.
RUN := PATH="$(CURDIR)/$(BIN):$$PATH"
ifneq ($(filter /%,$(VENV)),)
RUN := PATH="$(BIN):$$PATH"
endif

.PHONY: repro test quick check format docs site tour setup bench clean
repro: setup
	@$(RUN) python -m robustvae.experiments.rwlock
	@$(RUN) dvc repro
	@echo "Done: open reports/report.html"

test: setup
	@$(RUN) OMP_NUM_THREADS=1 python -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

quick: setup
	@$(RUN) OMP_NUM_THREADS=1 python -m pytest -n logical --maxprocesses 4 -m "not slow"

check: setup
	@$(RUN) ruff check .
	@$(RUN) ruff format --check .
	@$(RUN) mypy

format: setup
	@$(RUN) ruff check --fix .
	@$(RUN) ruff format .

bench: setup
	@$(RUN) python -m benchmarks

docs: setup
	@$(RUN) python -m robustvae params --write

site: $(STAMP)-site
	@$(RUN) NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet
	@echo "Done: open site/index.html"

tour: $(STAMP)-site
	@$(RUN) OMP_NUM_THREADS=1 jupyter execute --inplace docs/tour.ipynb

setup: $(STAMP)
	@git rev-parse --git-dir >/dev/null 2>&1 || $(RUN) dvc config --local core.no_scm true

$(STAMP): requirements.txt constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; \
	    v >= (3, 11) or sys.exit("robustvae needs Python >= 3.11, this is %d.%d; try: make PYTHON=python3.12" % v[:2])'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $(STAMP)

$(STAMP)-site: $(STAMP) requirements-site.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-site.txt
	@touch $@

clean:
	rm -rf $(VENV) .cache dvc_plots site
