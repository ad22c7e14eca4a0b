# Seawall: every target does its own set-up from a bare clone, and is quick when nothing changed.
# `make` alone lists them. What each one does is in tool/, as plain programs.

.DEFAULT_GOAL := help
.PHONY: help setup check test demo bench soak parts test-parts test-pooler test-slow lab clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-11s %s\n", $$1, $$2}' Makefile

setup: ## .venv from the hashed lock files (needs one Python of 3.11 or later)
	@PYTHON="$(PYTHON)" sh tool/setup.sh

demo: setup ## a running platform, signed webhooks, kill -9 of every process, and the verdict (STAY=1 keeps it up)
	@exec .venv/bin/seawall demo

test: setup ## tests that need no root (make check has the tidy ones): real PostgreSQL, under eight minutes; ends with "N passed, N failed"
	@sh tool/test.sh -n 4 --dist worksteal -q -m "not soak and not parts and not slow" --ignore tests/tidy $(ARGS)

test-slow: setup ## tests that take many processes, or many seconds; they need no root either
	@sh tool/test.sh -n 4 --dist worksteal -q -m "slow and not soak and not parts" $(ARGS)

check: setup ## format, lint, types and tidy tests, under a minute
	@sh tool/check.sh

bench: setup ## the figures, with the machine's own limits beside them; also build/bench.json (ARGS=name: only that one; peers: only so)
	@.venv/bin/python tool/bench.py $(ARGS)

soak: setup ## over two hours: 100 seeds of kills, outages of minutes, memory (SEEDS=n), 50 storms (STORMS=n); bench/RESULTS.md
	@SEEDS="$(SEEDS)" STORMS="$(STORMS)" sh tool/soak.sh $(ARGS)

parts: setup ## real Kafka, Redis, PostgreSQL, proxy into build/parts, each proven (a minute, 100 MB; then at once)
	@exec .venv/bin/seawall lab parts prepare $(ARGS)

test-parts: setup ## tests on the real parts (after make parts), and a table of outages; as root also full disks
	@sh tool/parts.sh $(ARGS)

POOLED = store worker router console responder workflow testing watch

test-pooler: setup ## tests of all that speaks with PostgreSQL, through pgbouncer lending by transaction (after make parts)
	@SEAWALL_TEST_POOLER=1 sh tool/test.sh -n 4 --dist worksteal -q -m "not soak and not parts and not root and not slow" \
	  $(POOLED:%=tests/%) tests/fault/test_worker_fence.py tests/fault/test_kills.py $(ARGS)

lab: setup ## the incidents, with the protections and without, on real parts; build/lab/index.html (ARGS=names: only those)
	@sh tool/lab.sh $(ARGS)

clean: ## remove what was made here; says what it leaves
	@if [ -d build/parts ] && [ -x .venv/bin/seawall ]; then .venv/bin/seawall lab parts down --wipe; fi
	@rm -rf .venv build .mypy_cache .ruff_cache .hypothesis
	@find src tests bench examples tool -name __pycache__ -type d -prune -exec rm -rf {} +
	@echo "clean: removed .venv, build and caches. Left alone: data folders (those given to --data, and /var/lib/seawall"
	@echo "       where root's databases lie), ledgers that you wrote, and pip's own cache."
