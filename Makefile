# What a person runs. Everything is set up on the first call and kept under ~/.cache/genrm; see CONTRIBUTING.md.
PYTHON ?= python3
DEV := .venv/dev/bin/python
BOOTSTRAP := $(PYTHON) dev/bootstrap.py

.PHONY: help demo test unit proof soak fuzz generate format lock cluster cluster-down cluster-status bench-door bench-gateway bench-judges bench-operator bench-orders bench-parsing bench-prewake bench-sleep bench-wake

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 24

demo:  ## from nothing to a GRPO run judged by vLLM pods that sleep in between (KEEP=1 leaves the cluster up)
	@$(BOOTSTRAP) dev
	@$(DEV) -m dev.demo $(if $(KEEP),--keep)

test:  ## every check and every test
	@$(BOOTSTRAP) dev
	@$(DEV) -m dev.checks
	@$(DEV) -m dev.prepare
	@$(DEV) -m pytest -n auto --maxprocesses 4 --dist loadgroup --no-loadscope-reorder

unit:  ## the checks and the tests that need no cluster: seconds
	@$(BOOTSTRAP) dev
	@$(DEV) -m dev.checks
	@$(DEV) -m pytest tests/unit

proof:  ## the longer tests that `make test` leaves out
	@$(BOOTSTRAP) dev
	@$(DEV) -m dev.prepare
	@$(DEV) -m pytest -m proof

soak:  ## of these: real engines under load, 100 nights long, and while their pods come and go (ARGS="-k nights")
	@$(BOOTSTRAP) dev
	@$(DEV) -m dev.prepare
	@$(DEV) -m pytest -s -m proof tests/e2e/test_soak.py $(ARGS)

generate:  ## write the CRD manifests, reference pages and dashboards from the code
	@$(BOOTSTRAP) dev
	@$(DEV) -m genrm_api.crd crds charts/genrm-operator/files/crds
	@$(DEV) -m genrm_operator.metrics docs/reference/metrics.md
	@$(DEV) -m dev.reference docs/reference
	@$(DEV) -m dev.dashboards charts/genrm-operator/dashboards

fuzz:  ## 100 000 manifests and changes: the API server and pydantic must agree on every one (EXAMPLES=20000)
	@$(BOOTSTRAP) dev
	@$(DEV) -m dev.prepare
	@GENRM_EQUALITY_EXAMPLES=$(or $(EXAMPLES),100000) $(DEV) -m pytest tests/cluster/test_api_equality.py --timeout=0

format:  ## format and fix what can be fixed
	@$(BOOTSTRAP) dev
	@$(DEV) -m ruff format .
	@$(DEV) -m ruff check --fix .

lock:  ## resolve pyproject.toml anew and export the pins to requirements/
	@$(BOOTSTRAP) dev
	@$(DEV) -m dev.lock

cluster:  ## a real Kubernetes node on this machine
	@$(BOOTSTRAP) dev
	@$(DEV) -m dev.cluster up --node

cluster-down:  ## remove it without a trace
	@$(BOOTSTRAP) dev
	@$(DEV) -m dev.cluster down --all

cluster-status:  ## what runs
	@$(BOOTSTRAP) dev
	@$(DEV) -m dev.cluster status

bench-operator:  ## what the operator bears: 1 000 RewardModels, 4 000 pods (15 minutes; ARGS="--models 200")
	@$(BOOTSTRAP) dev
	@$(DEV) -m tests.bench.bench_operator $(ARGS)

bench-wake:  ## what the operator adds to a wake of 64 pods, and to 200 handovers of a GPU (5 minutes)
	@$(BOOTSTRAP) dev
	@$(DEV) -m tests.bench.bench_wake $(ARGS)

bench-prewake:  ## what a step waits for a model that sleeps between steps (1 second; ARGS=--real: 15 minutes)
	@$(BOOTSTRAP) dev
	@$(DEV) -m tests.bench.bench_prewake $(ARGS)

bench-gateway:  ## what the gateway adds to a request, what it bears, and its memory over a million samples (5 minutes)
	@$(BOOTSTRAP) dev
	@$(DEV) -m tests.bench.bench_gateway $(ARGS)

bench-judges:  ## how much order a judgement buys: every rule, schedule and rival on simulated judges (half an hour)
	@$(BOOTSTRAP) dev
	@$(DEV) -m tests.bench.bench_judges $(ARGS)

bench-orders:  ## what the least contradicted orders of a tournament cost (2 minutes)
	@$(BOOTSTRAP) dev
	@$(DEV) -m tests.bench.bench_orders $(ARGS)

bench-parsing:  ## what writing a question and reading its answer costs (10 seconds)
	@$(BOOTSTRAP) dev
	@$(DEV) -m tests.bench.bench_parsing $(ARGS)

bench-sleep:  ## what vLLM's sleep gives back and whether it wakes the same; for a machine with a GPU (ARGS="--generative MODEL")
	@$(BOOTSTRAP) dev
	@$(DEV) -m tests.gpu.bench_sleep $(ARGS)

bench-door:  ## what the door costs a request
	@$(BOOTSTRAP) dev
	@$(DEV) -m tests.bench.bench_door
