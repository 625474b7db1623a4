# `make demo`, `make test`, `make docs` and `make bench` do all their own set-up: a virtual environment in .venv with the package installed in it.
PYTHON ?= python3
BIN := .venv/bin
# Modules are compiled when they are first imported, and kept; all of torch would take half a minute.
INSTALL := install --quiet --no-compile
unexport PYTHONDONTWRITEBYTECODE
# OpenMP's threads spin while they wait, which on few cores starves the data loaders.
export GOMP_SPINCOUNT ?= 1000
# Neighbouring tests mostly stay in one process, because they share what a module made for them.
PARALLEL := -n auto --dist worksteal

.PHONY: demo test fuzz kills leaks test-bare test-min docs package bench bench-gpu claims-gpu clean

demo: .venv/demo.stamp  ## every stage on the synthetic devkit: a table and a folder of pictures in runs/quickstart
	$(BIN)/ssdd devkit runs/quickstart/devkit
	$(BIN)/ssdd run experiments/quickstart --root runs/quickstart/devkit --out runs/quickstart

test: .venv/test.stamp  ## lint, types, rooms, tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest $(PARALLEL)

fuzz: .venv/test.stamp  ## mutants of every file format in every reader; MUTANTS each (10,000), those that break one in build/fuzz
	mkdir -p build/fuzz
	MUTANTS=$(or $(MUTANTS),10000) KEEP=$(CURDIR)/build/fuzz $(BIN)/pytest $(PARALLEL) tests/test_fuzz.py

kills: .venv/test.stamp  ## every command stopped at KILLS moments (20), each by a kill and by a full disk
	KILLS=$(or $(KILLS),20) $(BIN)/pytest $(PARALLEL) tests/test_kills.py

leaks: .venv/test.stamp  ## fits with workers in one process for LEAK_MINUTES (30); the slope of its memory, and what is left
	LEAK_MINUTES=$(or $(LEAK_MINUTES),30) $(BIN)/pytest tests/test_leaks.py

# Before a release: the tests with nothing but what a user gets, at the newest and at the lowest versions.
TESTER := 'pytest>=8' 'pytest-xdist>=3.2'

test-bare:  ## tests without any extra
	$(PYTHON) -m venv build/bare && build/bare/bin/pip $(INSTALL) --editable . $(TESTER)
	build/bare/bin/pytest $(PARALLEL)

test-min:  ## tests with the lowest versions that setup.cfg declares
	$(PYTHON) -m venv build/min && build/min/bin/pip install --quiet uv
	build/min/bin/uv pip install --quiet --python build/min/bin/python --resolution lowest-direct --editable .
	build/min/bin/uv pip install --quiet --python build/min/bin/python $(TESTER)
	build/min/bin/pytest $(PARALLEL)

docs: .venv/docs.stamp  ## the site in site/, with executed notebooks; any warning is an error
	$(BIN)/mkdocs build --strict

# Sixteen images and one epoch a stage: the demo as far as its seed masks, in a minute.
FEW := $(CURDIR)/build/package/few.txt
SHORT := $(foreach o,max_epochs=1 limit_val_batches=1,--set trainer.$(o)) \
	$(foreach s,train val test predict,--set data.splits.$(s)=$(FEW))

package: .venv/test.stamp  ## build wheel and sdist, check them, install the wheel elsewhere and run a short demo from it
	rm -rf build dist && mkdir -p build/package
	$(BIN)/python -m build --outdir dist .
	$(BIN)/twine check --strict dist/*
	$(PYTHON) -m venv build/package/venv
	build/package/venv/bin/pip $(INSTALL) "$$(ls dist/*.whl)[offline]"
	seq -f '2007_%06g' 16 > $(FEW)
	cd build/package && venv/bin/ssdd --version && venv/bin/ssdd init quickstart \
		&& venv/bin/ssdd run quickstart --until static/predictions --seed_split $(FEW) $(SHORT)

BENCH := build/bench

bench: .venv/test.stamp  ## short forms of the benchmarks, five minutes on two idle cores: tables here, numbers in build/bench
	# those with a dash end with an error when they miss an aim, which must not stop the others
	mkdir -p $(BENCH)
	$(BIN)/python benchmarks/input.py --count 20 --json $(BENCH)/input.json
	$(BIN)/python benchmarks/dynamic_step.py --steps 3 --json $(BENCH)/dynamic_step.json
	$(BIN)/python benchmarks/reference_step.py --rounds 3 --json $(BENCH)/reference_step.json
	$(BIN)/python benchmarks/inference.py --rounds 1 --json $(BENCH)/inference.json
	$(BIN)/python benchmarks/scaling.py --json $(BENCH)/scaling.json --plot $(BENCH)/scaling.png
	$(BIN)/python benchmarks/crf.py --timed 5 --json $(BENCH)/crf.json
	-$(BIN)/python benchmarks/random_walk.py --repeats 2 --dense_seconds 5 --json $(BENCH)/random_walk.json
	-$(BIN)/python benchmarks/evaluate.py --masks 200 --repeats 1 --json $(BENCH)/evaluate.json
	$(BIN)/python benchmarks/finished_run.py --photos 1000 --json $(BENCH)/finished_run.json

GPU := build/gpu

bench-gpu: .venv/test.stamp  ## the tables' rows that need a GPU, most wanted first, numbers in build/gpu; PHOTOS=FOLDER: the CRF on photos
	# STEP: further options of the first, as --peak and the GPU's TFLOP/s; those with a dash end with an error when results differ, which must not stop the others
	mkdir -p $(GPU)
	-$(BIN)/pip $(INSTALL) --editable '.[pydensecrf]'
	$(BIN)/python benchmarks/dynamic_step.py --backbone resnet38 --head largefov --crop 448 --width 256 --classes 21 --json $(GPU)/dynamic_step.json $(STEP)
	-$(BIN)/python benchmarks/reference_step.py --json $(GPU)/reference_step.json
	$(BIN)/python benchmarks/crf.py --json $(GPU)/crf.json
	$(if $(PHOTOS),-$(BIN)/python benchmarks/crf.py --photos '$(PHOTOS)' --json $(GPU)/crf_photos.json)
	-$(BIN)/python benchmarks/inference.py --json $(GPU)/inference.json
	$(BIN)/python benchmarks/step_profile.py --json $(GPU)/step_profile.json

claims-gpu: .venv/test.stamp  ## what the method is worth with more steps, for a GPU, most wanted first; ROOT=DEVKIT LABELS=FILE of the animals' photos
	# benchmarks/claims.py: forty times the steps of the second part, then the other loss, then every row
	for rows in "longer_forty dynamic_forty" "pixel_mean_longer pixel_mean" "knowledge_longer advice_longer longer dynamic truth_longer"; do \
		$(BIN)/python benchmarks/claims.py --root '$(ROOT)' --labels '$(LABELS)' --truth SegmentationClassAug --out build/claims --rows $$rows \
		|| exit 1; done

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/demo.stamp: setup.cfg pyproject.toml | .venv/bin/python
	$(BIN)/pip $(INSTALL) --editable '.[offline]'
	touch $@

.venv/test.stamp: setup.cfg pyproject.toml | .venv/bin/python
	$(BIN)/pip $(INSTALL) --editable '.[offline,coco,dev]'
	touch $@ .venv/demo.stamp

.venv/docs.stamp: setup.cfg pyproject.toml | .venv/bin/python
	$(BIN)/pip $(INSTALL) --editable '.[offline,docs]'
	touch $@ .venv/demo.stamp

clean:  ## remove what the commands above made
	rm -rf .venv build dist site runs/quickstart
