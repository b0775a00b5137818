# Two commands: `make run` builds the dataset, `make test` runs the whole test-suite.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export HF_HUB_OFFLINE := 1
export DO_NOT_TRACK := 1

.PHONY: run test verify faults wheel clean install install-dev models lock lmms-eval bench chaos docs

run: install models
	$(BIN)/holisafe build

test: install-dev models
	$(BIN)/holisafe models pull smollm2-135m-instruct-q4_1
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -m "not llm" --numprocesses 2 --dist loadfile --no-loadscope-reorder
	$(BIN)/pytest -m llm

# Slow, not part of `test`: two clean builds give the same bytes, though one is killed half-way and resumed.
# With SHARE=0.5 half of the second one's calls are answered by the first; EVERY=2 takes every second class only.
SHARE := 1
EVERY := 1
verify: install-dev models
	$(BIN)/python tests/verify/verify.py --share $(SHARE) --every $(EVERY)

# As root on Linux: a build that is stopped, loses its model server and fills its disk, and then ends.
faults: install-dev models
	$(BIN)/python tests/verify/faults.py

# The wheel in an environment of its own: a workspace out of it, and the first stages.
wheel: install-dev
	$(BIN)/python tests/verify/wheel.py

# Everything that is measured (docs/performance.md), on a machine that does nothing else: an hour and a half.
# With BENCH='--only engine' some of it.
BENCH := --history
bench: install-dev models
	$(BIN)/python -m benchmarks $(BENCH); code=$$?; \
	  $(BIN)/python -m benchmarks --table docs/performance.md && exit $$code

# Faults at random points of small builds, and a recovery after each few. SEED=7 draws again what a run drew; without
# root on Linux the full disk is left out, without PostgreSQL the database that dies.
FAULTS := 50
SEED :=
LOG :=
chaos: install-dev
	$(BIN)/python tests/verify/chaos.py --faults $(FAULTS) $(if $(SEED),--seed $(SEED)) $(if $(LOG),--log $(LOG))

# The documentation with its tutorials and the API as a site that opens from its folder: site/index.html. The switch
# leaves out a notice that mkdocs-material prints.
docs: install-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# lmms-eval pins other versions than we do, so that it has an environment of its own, which sees our packages.
lmms-eval: install-dev
	test -x $(VENV)-lmms-eval/bin/python || $(PYTHON) -m venv $(VENV)-lmms-eval
	$(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))" > \
	  $$($(VENV)-lmms-eval/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/ours.pth
	$(VENV)-lmms-eval/bin/python -m pip install --quiet --disable-pip-version-check lmms-eval==0.7.3

install: $(VENV)/.installed
install-dev: $(VENV)/.installed-dev
models: install
	$(BIN)/holisafe models pull

$(VENV)/.installed: requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-virtualenv -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	test -d .dvc || $(BIN)/dvc init --quiet
	touch $@

$(VENV)/.installed-dev: requirements-dev.lock $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-virtualenv -r requirements-dev.lock
	touch $@

lock: install-dev
	$(BIN)/python scripts/lock.py

clean:
	rm -rf .holisafe data/collect data/generate data/curate data/label_images data/synthesize \
	  data/label_pairs data/respond data/dataset data/audit dvc.lock
