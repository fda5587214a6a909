# Two commands do everything: `make demo` and `make test`. Each sets itself up in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TIDEGATE := $(BIN)/tidegate

.DEFAULT_GOAL := help

help: ## Show this list.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(READY): requirements/dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; name one with PYTHON=..."; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV)
	@echo "installing into $(VENV) (once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.lock
	@# setuptools warns of every editable installation.
	@PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

setup: $(READY) ## Set up .venv.

demo: $(READY) ## Run a bank, broker, Redis, worker and API here; ARGS=... passes options.
	@$(TIDEGATE) demo $(ARGS)

test: $(READY) ## Run the tests; ARGS=... passes options to pytest.
	@$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

slow: $(READY) ## The tests that would make the default run longer than ten minutes.
	@$(BIN)/python -m pytest -n 2 --dist worksteal -m slow tests $(ARGS)

lint: $(READY) ## Format, lint, types, imports, generated files.
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

properties: $(READY) ## Features against their oracles, 2,000 examples each, with their coverage; half an hour at most.
	@$(BIN)/python -m pytest -n 2 --dist worksteal --hypothesis-profile=ci -m "not bench and not long" tests/parity tests/unit/features \
	  --cov=features --cov-branch --cov-report=term --cov-fail-under=95 $(ARGS)

check: lint ## What CI runs: lint, tests with the coverage floor of the core.
	@$(BIN)/python -m pytest -n 2 --dist loadfile --cov --cov-branch --cov-report=term --cov-fail-under=90 $(ARGS)

kafka: $(READY) ## Run Apache Kafka here until Ctrl-C (needs Java 17 and Maven).
	@$(TIDEGATE) kafka $(ARGS)

faults: $(READY) ## Break real processes and count; writes the table of docs/reliability.md; an hour.
	@rm -rf .tidegate/faults .tidegate/faults.failed; mkdir -p .tidegate
	@TIDEGATE_TEST_BROKER=$${TIDEGATE_TEST_BROKER:-kafka} $(BIN)/python -m pytest -m faults tests/faults $(ARGS) || touch .tidegate/faults.failed
	@TIDEGATE_TEST_BROKER=embedded $(BIN)/python -m pytest -m faults tests/faults/test_workers.py \
	  tests/faults/test_redis_faults.py tests/faults/test_input_faults.py $(ARGS) || touch .tidegate/faults.failed
	@$(BIN)/python -m tests.faults.report docs/reliability.md
	@test ! -e .tidegate/faults.failed || { rm .tidegate/faults.failed; exit 1; }

faults-short: $(READY) ## The part of it that CI runs; on Apache Kafka, needs Java 17 and Maven.
	@TIDEGATE_TEST_BROKER=$${TIDEGATE_TEST_BROKER:-kafka} $(BIN)/python -m pytest -m "faults and short" tests/faults $(ARGS)

mutations: $(READY) ## Remove each guard of the protocol in a copy and name the test that notices.
	@$(BIN)/python -m tests.faults.mutations

soak: $(READY) ## Run under load for long and watch memory and lag; ARGS="--minutes 60".
	@$(BIN)/python -m tests.faults.soak $(ARGS)

secrets: ## Make passwords for docker compose in ./secrets; ARGS="tg tg2" for other namespaces than tg.
	@./infra/docker/secrets.sh secrets $(ARGS)

peers: $(READY) ## Compare with stock Faust and Quix Streams on Apache Kafka; an environment of its own, some minutes.
	@test -e .tidegate/peers/.ready || { echo "installing into .tidegate/peers (once)"; mkdir -p .tidegate && $(PYTHON) -m venv --clear .tidegate/peers && \
	  .tidegate/peers/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.lock && \
	  .tidegate/peers/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/peers.lock && \
	  touch .tidegate/peers/.ready; }
	@.tidegate/peers/bin/python -m tests.bench.peers.run $(ARGS)

tools: ## Unpack Prometheus and build Helm into .tidegate/tools, for make ops.
	@./.ci/tools

ops: $(READY) ## Run Prometheus, Helm and the like on what operators get; some minutes.
	@$(BIN)/python -m pytest -m ops tests/ops $(ARGS)

audit: $(READY) ## Look for known vulnerabilities in the pinned packages.
	@$(BIN)/pip-audit --require-hashes --disable-pip -r requirements/dev.lock

generated: $(READY) ## Write the files that are generated from code.
	@$(TIDEGATE) schemas export schemas/json
	@$(TIDEGATE) features list --markdown > docs/features.md
	@$(TIDEGATE) settings --markdown > docs/settings.md
	@$(TIDEGATE) metrics --markdown > docs/metrics.md
	@$(BIN)/python -m infra.dashboards infra/grafana/dashboards

lock: $(READY) ## Pin current versions with hashes.
	@for extras in stream api,postgresql train sink,postgresql online; do \
	  $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-strip-extras --upgrade --no-emit-index-url --no-emit-find-links \
	    --custom-compile-command "make lock" --extra $$(echo $$extras | sed 's/,/ --extra /') -o requirements/$${extras%%,*}.lock pyproject.toml; done
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-strip-extras --upgrade --no-emit-index-url --no-emit-find-links \
	  --custom-compile-command "make lock" --all-extras --group dev -o requirements/dev.lock pyproject.toml
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-strip-extras --upgrade --no-emit-index-url --no-emit-find-links \
	  --custom-compile-command "make lock" --extra stream --group peers -o requirements/peers.lock pyproject.toml

clean: ## Remove everything that was made here.
	@rm -rf $(VENV) .tidegate .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage build *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help setup demo test slow lint properties check kafka faults faults-short mutations soak secrets peers tools ops audit generated lock clean
