# Everything a person or CI runs. `make` alone explains.
# The work is in packaging/dev/*.sh and packaging/deb/*.sh, so that it can be read and run without make.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Where rustup puts cargo on a machine on which `make setup` has just installed it.
export PATH := $(PATH):$(HOME)/.cargo/bin
export HYBOND_CACHE ?= /var/cache/hybond-lab

.PHONY: bench bench-own test-all help setup setup-build build lint test test-unit test-pair test-netns test-qemu test-guest test-lab test-tier3 test-crash test-faults test-packages test-fuzz soak demo packages clean

help: ## this text
	@echo "hybond: SR-IOV guests that migrate with a plain 'virsh migrate'. As root, on Debian 12 or 13:"
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "What is slow to make (tools, the lab's images and saved hosts) is kept in HYBOND_CACHE=$(HYBOND_CACHE)."
	@echo "The first 'make demo' takes 6 to 20 minutes on 2 cores, later ones 1.5 to 5. More: docs/development.md"

setup: ## install what building and testing need (Debian packages, and rustup where there is no cargo)
	packaging/dev/setup.sh all

setup-build:
	packaging/dev/setup.sh build

build: setup-build ## build every program, unoptimised
	cargo build --workspace --locked

lint: setup-build ## formatting, clippy, licences and advisories, scripts
	packaging/dev/test.sh lint

# What keeps one core busy runs beside another such.
suites := lint unit netns+packages qemu,guest,pair+crash,lab tier3

test: setup packages ## lint and every suite but the longer lists: 20 to 45 minutes on 2 cores
	packaging/dev/test.sh $(suites)

test-all: setup packages ## make test, what hosts do around their guests, flavors and paths on a card's VFs, the lab's own test, the fuzzers, and what all shows: half an hour more
	packaging/dev/test.sh $(suites) hosts cards ground fuzz coverage

test-unit: setup-build ## the crates' own tests
	packaging/dev/test.sh unit

test-pair: setup-build ## both ends of a migration on virtual time, over a link that loses and reorders
	packaging/dev/test.sh pair

test-netns: setup ## real netlink, in network namespaces
	packaging/dev/test.sh netns

test-qemu: setup ## real QEMU, without libvirt
	packaging/dev/test.sh qemu

test-guest: setup packages ## the agent in a guest of its own: Debian's kernel in QEMU, packets counted
	packaging/dev/test.sh guest

test-lab: setup packages ## two libvirtds in namespaces: migrations, a guest's lives, daemons that die, a short soak
	packaging/dev/test.sh lab crash

test-tier3: setup packages ## two emulated hosts with SR-IOV, VFIO, AppArmor and systemd, and the packages on them
	packaging/dev/test.sh tier3

test-crash: setup ## the daemon killed before and after every effect of every operation, on either host; up to 20 minutes
	HYBOND_CRASH_POINTS=all packaging/dev/test.sh crash

test-faults: setup packages ## everything that can go wrong: test-crash, the table of docs/failure-matrix.md, the invariants; up to an hour
	packaging/dev/test.sh faults

test-packages: setup-build ## build the packages, unpack them, look at every file
	packaging/dev/test.sh packages

test-fuzz: setup-build ## hostile input: each parser against bytes made up for 20 s, or HYBOND_FUZZ_SECONDS
	packaging/dev/test.sh fuzz

soak: setup packages ## 14 guests, 60 migrations between two libvirtds, everything looked at after each, and 20 between emulated hosts; up to an hour
	packaging/dev/test.sh soak soak-tier3

# Of `make bench`: how often each variant is taken, and which parts (migrate memory hook agent switch scale; all without).
ROUNDS ?= 10
PARTS ?=

bench: setup packages ## what hybond costs: table, JSON and pictures in target/bench/, and docs/performance.md; hours ('make bench PARTS=migrate': 40 minutes), leave the machine alone
	cargo run --release --locked -p hybond-bench -- --rounds $(ROUNDS) $(PARTS)
	cargo run --release --locked -p hybond-bench -- page

bench-own: setup packages ## of that, what needs no emulated hosts, short: 'make bench-own ROUNDS=3'; no page is written
	cargo run --release --locked -p hybond-bench -- --rounds $(ROUNDS) --idle 5 --sizes 10:1,100:2,1000:16 hook agent switch scale

demo: setup packages ## two emulated hosts, a guest with a VF, virsh migrate there and back; report in target/demo/
	cargo run --locked -p hybond-lab --bin hybond-lab -- demo

packages: setup-build ## target/packages/hybond_*.deb and hybond-agent_*.deb
	packaging/deb/build.sh

clean: ## remove what was built; the cache stays
	cargo clean
