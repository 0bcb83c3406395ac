# Two CPU cores are enough for every target; the first one run makes .venv and installs into it.
PYTHON ?= python3
RUN := .venv/bin/python
export TOKENIZERS_PARALLELISM := false
demo test: export HF_HUB_OFFLINE := 1

.PHONY: demo test check lab soak mutants ablation bench
.DEFAULT_GOAL := demo

.venv/ready: requirements.txt constraints.txt
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("stlite needs Python 3.11 or newer")'
	$(PYTHON) -m venv .venv
	$(RUN) -m pip install -q -c constraints.txt torch torchvision
	$(RUN) -m pip install -q -c constraints.txt -r requirements.txt
	$(RUN) -c 'import site, os; open(os.path.join(site.getsitepackages()[0], "stlite_here.pth"), "w").write(os.getcwd())'
	touch $@

demo: .venv/ready ## base, SFT, GRPO, evaluation: the notebooks, with a table and a report at the end
	$(RUN) notebooks/run.py 00 03 04 05 06

test: .venv/ready check ## every test
	$(RUN) -m pytest

check: .venv/ready ## style
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) tests/style.py

lab: .venv/ready ## the notebooks in JupyterLab
	$(RUN) -m jupyter lab notebooks

soak: .venv/ready ## the long versions of the tests that kill runs, and a search at random for text that breaks a reader
	STLITE_SEARCH=1 $(RUN) -m pytest tests/data/test_egost.py tests/rewards tests/train/test_genuine.py tests/train/test_resume_families.py
	STLITE_KILLS=50 $(RUN) -m pytest tests/eval/test_evaluate.py tests/data/test_video.py tests/train/test_resume.py tests/viz/test_annotator.py -k "kill"

mutants: .venv/ready ## do the tests notice when a line is wrong? an hour; MODULES="statistics parse" for some
	$(RUN) benchmarks/mutants.py $(MODULES)

ablation: .venv/ready ## the paper's experiment in miniature; resumes
	$(RUN) benchmarks/reinforcement.py run
	$(RUN) benchmarks/prefix_intervention.py
	$(RUN) benchmarks/reinforcement.py report

bench: .venv/ready ## every measurement, written to benchmarks/RESULTS.md
	$(RUN) benchmarks/bench.py
