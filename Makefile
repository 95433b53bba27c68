# SPDX-License-Identifier: Apache-2.0
#
# The commands of a developer's day. The build itself is CMake (CMakeLists.txt); this file only
# names what is done often. `make` lists the targets.
.DEFAULT_GOAL := help
.PHONY: help demo build test check e2e bench fuzz format clean deps
MAKEFLAGS += --no-print-directory

PRESET ?= release
JOBS ?= $(shell nproc)
FUZZ_SECONDS ?= 60

help: ## list the targets
	@awk -F ':[^\#]*\#\# ' '/^[a-z0-9]+:.*\#\# / {printf "  make %-7s%s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: deps ## install what is missing, build the program, and show what it does
	@cmake --preset release >/dev/null
	cmake --build build/release -j $(JOBS) --target ringdisk
	scripts/demo

build: ## build (PRESET=release, debug, asan, tsan or gcc) into build/PRESET
	@cmake --preset $(PRESET) >/dev/null
	cmake --build build/$(PRESET) -j $(JOBS)

test: ## everything that CI runs: both compilers, sanitizers, interop, fuzz smoke (under 45 minutes)
	scripts/run-tests

check: ## before a commit: style, release build, unit tests (under 5 minutes)
	scripts/run-tests --stage tidy --stage unit

e2e: deps ## only the tests in a virtual machine (4 minutes)
	scripts/run-tests --stage e2e

bench: build ## compare with other programs on this machine
	bench/run

fuzz: ## run each fuzzer for FUZZ_SECONDS (60), keeping what it finds in build/
	@$(MAKE) build PRESET=asan
	scripts/fuzz --seconds $(FUZZ_SECONDS)

format: ## lay out all C++ files
	scripts/format

deps: ## install the packages that are missing (Debian 12)
	@scripts/install-deps

clean: ## remove everything that was built
	rm -rf build
