# What there is to do here. Settings: docs/settings.md. `exec`, so that a signal to make reaches what it runs.

.PHONY: help run stop test test-deadline bench simulate chaos chaos-full chaos-planted chaos-soak fuzz fuzz-parsers fmt lint check clean-data
.DEFAULT_GOAL := help

help: ## This list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 24

run: ## Run Frontdesk here; MODEL=local adds a small real model, WORKERS=4 more workers, PROFILE=release speed
	@exec scripts/run

stop: ## End what `make run` started; the data stays
	@scripts/stop

test: ## All tests, on servers of their own; ARGS go to the test runner
	@exec scripts/test $(ARGS)

test-deadline: ## The one test that waits for the true five minutes
	@exec scripts/test --deadline

bench: ## Measure, against a bare floor, and print one table
	@exec scripts/bench $(ARGS)

simulate: ## Hold the pure parts against tens of thousands of random cases; ARGS name which
	@exec scripts/simulate $(ARGS)

chaos: ## Kill, freeze and cut off parts of the product under traffic, and print what held; ARGS='--list' tells the rows
	@exec scripts/chaos $(ARGS)

chaos-full: ## The same in full size, each row on both databases; times decide too
	@exec scripts/chaos --full $(ARGS)

chaos-planted: ## Plant bugs, one after the other, and see that its row finds each
	@exec scripts/chaos --planted all $(ARGS)

chaos-soak: ## Every row, again and again for four hours, with another seed each time
	@exec scripts/chaos --soak 4h $(ARGS)

fuzz: ## Send schemathesis with all its checks over the API of a stack of its own; ARGS are passed on
	@exec scripts/fuzz $(ARGS)

fuzz-parsers: ## Fuzz what is read from others byte by byte, SECONDS=60 each of five targets; ARGS name some of them
	@SECONDS_EACH=$(or $(SECONDS),60) exec scripts/fuzz-parsers $(ARGS)

fmt: ## Format the code
	@cargo fmt --all

lint: ## Formatting, clippy, documentation and dependencies, with warnings denied
	@scripts/lint

check: ## What CI runs
	@exec .ci/run

clean-data: ## Forget the data of `make run`
	@scripts/clean-data
