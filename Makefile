# The few commands of the house. `make` alone lists them.
CARGO ?= cargo
.DEFAULT_GOAL := help
.PHONY: help demo demo-cluster test test-real test-simulated storm simulate mutants bench bench-judge lint crds

help: ## List the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | expand -t 16

demo: ## Watch a good release go out and a bad one roll itself back, on the embedded sandbox
	@$(CARGO) build --quiet --release --bin tidegate
	@target/release/tidegate demo

demo-cluster: ## The same on a real API server, a real gateway and a real Prometheus (needs Go, installs what it needs)
	@e2e/tools/install
	@$(CARGO) build --quiet --release -p tidegate -p tidegate-e2e
	@target/release/tidegate-e2e demo

# The tools come first: the tests of the harness use them as well. A real control plane mostly waits; what it leaves of the
# cores lives through all that can go wrong.
test: ## Everything that can run here
	@if command -v go >/dev/null; then e2e/tools/install; fi
	$(CARGO) test --workspace
	@$(MAKE) --no-print-directory --jobs=2 test-real test-simulated

test-real:
	@if command -v go >/dev/null; then $(CARGO) build --workspace && target/debug/tidegate-e2e test; \
	else echo "NOT RUN: the scenarios on a real control plane need Go, which is not installed"; fi

test-simulated:
	@nice -n 19 $(CARGO) build --quiet --profile simulate -p tidegate-simulator
	@nice -n 19 target/simulate/simulate exhaustive --quiet
	@nice -n 19 target/simulate/simulate random --quiet --lives 10000 --minutes 2

storm: ## Ten minutes of releases on the real control plane while everything around them is killed and restarted
	@e2e/tools/install
	@$(CARGO) build --quiet --workspace
	@target/debug/tidegate-e2e storm

bench: ## Memory, CPU, API writes and latencies on the real control plane
	@e2e/tools/install
	@$(CARGO) build --quiet --release -p tidegate -p tidegate-e2e
	@target/release/tidegate-e2e bench

simulate: ## Random lives in which everything goes wrong: N=10000 of them, MINUTES=60 each, from SEED=1 on
	@$(CARGO) build --quiet --profile simulate -p tidegate-simulator
	@target/simulate/simulate random --lives $(or $(N),10000) --minutes $(or $(MINUTES),60) --seed $(or $(SEED),1)

mutants: ## Whether the simulator sees each of its seeded bugs: builds the controller some seventy times
	@$(CARGO) run --quiet --package tidegate-simulator -- mutants

bench-judge: ## The judge against simulated releases: false alarms, and how soon bad ones are found
	@$(CARGO) run --quiet --profile simulate --example judge_table -- --plots docs/judging
	@$(CARGO) run --quiet --profile simulate --example judge_corpus

lint: ## Formatting, clippy with warnings denied, licences and sources
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- --deny warnings
	@if $(CARGO) deny --version >/dev/null 2>&1; then $(CARGO) deny check licenses bans sources; \
	else echo "NOT RUN: cargo deny is not installed (cargo install --locked cargo-deny)"; fi

crds: ## Write crds/ and the chart's copy anew from the types
	$(CARGO) run --quiet -- crds --output crds
