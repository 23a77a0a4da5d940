# The version is the manifest's: one place for the collector and the CLI.
VERSION := $(shell sed -n 's/^  version: //p' builder-config.yaml)
TOOL    := go tool -modfile=internal/tools/go.mod
# One way to build programs, here and for the image: nothing of this machine in them.
BUILD   := go build -trimpath
# The collector loads NVIDIA's library at run time, which takes the C library and its loader. Functions are bound when they are
# called first, whatever this machine's linker does by itself: without a driver those of that library are nowhere. Names and users
# are looked up as without the C library. CGO=0 builds it without C, for machines with no compiler, and without NVML.
CGO       ?= 1
COLLECTOR := CGO_ENABLED=$(CGO) $(BUILD) -tags=netgo,osusergo -ldflags='-s -w -extldflags=-Wl,-z,lazy'
# Compilers for other machines are Debian's: gcc-aarch64-linux-gnu.
CC_amd64  := x86_64-linux-gnu-gcc
CC_arm64  := aarch64-linux-gnu-gcc
ifneq ($(GOARCH),)
ifneq ($(GOARCH),$(shell go env GOHOSTARCH))
export CC := $(CC_$(GOARCH))
endif
endif
# NVIDIA's header calls much of itself deprecated, and the Go binding binds all of it.
export CGO_CFLAGS ?= -O2 -g -Wno-deprecated-declarations
# Where programs are built to.
BIN     := bin
# What `make image` makes: its name, and for which machines; both: make image ARCHS='amd64 arm64'.
IMAGE   := ghcr.io/orb8/orb8
ARCHS   := $(shell go env GOARCH)
# More flags for `go test`, e.g. TESTFLAGS=-v, and for what is to be watched for races, RACE=-race.
TESTFLAGS ?=
RACE      ?=

# What `make generate` writes.
GENERATED := '*.pb.go' '*.connect.go' '*_bpfel.go' '*_bpfel.o' '*/documentation.md' '*generated_*' '*/internal/metadata/*'
# What `make web` writes.
WEB       := extension/orb8queryextension/internal/ui/dist

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r target text; do \
		printf '  %-16s %s\n' "$$target" "$$text"; done

.PHONY: run
run: as-root build ## build, check this host and watch it: run as root, stop with Ctrl-C
	@distribution/run.sh

.PHONY: as-root
as-root: # before the build, which takes minutes
	@test "$$(id -u)" = 0 || { echo 'make run needs root to load BPF programs: run `sudo make run`' >&2; exit 1; }

.PHONY: build
build: distribution/build/main.go ## build bin/orb8-collector and bin/orb8
	cd distribution/build && $(COLLECTOR) -o orb8-collector .
	@# A copy: the linker leaves what it writes in the page cache in pieces of 2 MB, each of which the process would have as a whole.
	install -D distribution/build/orb8-collector $(BIN)/orb8-collector
	CGO_ENABLED=0 $(BUILD) -ldflags='-s -w -X main.version=v$(VERSION)' -o $(BIN)/orb8 ./cmd/orb8
	@# In the PATH these make it `kubectl orb8`.
	@ln -sf orb8 $(BIN)/kubectl-orb8 && ln -sf orb8 $(BIN)/kubectl_complete-orb8

# ocb writes the collector's main package and pins its modules; building it is left to go, which knows what is up to date.
distribution/build/main.go: builder-config.yaml go.mod go.sum internal/tools/go.mod
	$(TOOL) builder --config builder-config.yaml --skip-compilation

.PHONY: image
image: $(ARCHS:%=image-%) ## assemble bin/orb8-GOARCH.tar, for `ctr -n k8s.io images import` and `docker load`; needs apt-get

# The main package first: the builder runs here, and not on the machine that the programs are for.
image-%: distribution/build/main.go
	$(MAKE) build BIN=bin/linux-$* GOOS=linux GOARCH=$*
	SOURCE_DATE_EPOCH=$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct)} go run ./distribution/image -name $(IMAGE) -arch $* -programs bin/linux-$* \
		-version $(VERSION) -revision "$$(git describe --always --dirty --abbrev=40 --exclude='*')" -output bin/orb8-$*.tar

# Packages whose tests watch the host, or measure it: one at a time, or they would count each other's packets.
WATCHING := $$(go list ./testbed/... | grep -Ev '/testbed/(kernels|backends|cluster|deploy|e2e|gateway|web)')
# Those that start programs and a cluster of their own go beside them: most of their time is waiting.
STARTING := ./testbed/backends/... ./testbed/cluster/... ./testbed/deploy ./testbed/e2e ./testbed/gateway ./testbed/web

.PHONY: test
# Other kernels have a machine of their own, and one CPU's work: they go beside the first. The test bed's own code is not what RACE is for.
test: build ## run every test; as root, so that those that load BPF programs are not skipped
	failed=; go test -count=1 -timeout=40m $(TESTFLAGS) ./testbed/kernels/... & kernels=$$!; \
	go test $(TESTFLAGS) $(RACE) $$(go list ./... | grep -Ev '/(receiver|testbed)/?') || failed=1; \
	wait $$kernels || failed=1; test -z "$$failed"
	failed=; go test -p=1 -count=1 -timeout=20m $(TESTFLAGS) $(STARTING) & starting=$$!; \
	go test -p=1 -count=1 -timeout=20m $(TESTFLAGS) $(RACE) ./receiver/... || failed=1; \
	go test -p=1 -count=1 -timeout=20m $(TESTFLAGS) $(WATCHING) || failed=1; \
	wait $$starting || failed=1; test -z "$$failed"

.PHONY: test-kernels
test-kernels: ## run the receiver's tests on Debian's Linux 6.1 too, in QEMU
	ORB8_REQUIRE=kernels go test -count=1 -v ./testbed/kernels

.PHONY: test-gpu
test-gpu: ## hold what the receiver reads of this machine's NVIDIA GPUs against nvidia-smi
	ORB8_REQUIRE=gpu go test -count=1 -v -run=TestRealGPUs ./receiver/gpureceiver/...

.PHONY: cluster-build
cluster-build: ## build the Kubernetes of the test bed into the cache; ten minutes the first time, Debian 12 only
	go run ./testbed/cluster/cmd/cluster build

.PHONY: backends-build
backends-build: ## build the log engines that a store can be kept in, for its tests, into the cache; five minutes the first time
	go run ./testbed/backends/cmd/backends

.PHONY: cluster-up
cluster-up: ## start a Kubernetes of one node on this machine, as root; see CONTRIBUTING.md
	go run ./testbed/cluster/cmd/cluster up

.PHONY: cluster-down
cluster-down: ## end it and remove all of it
	go run ./testbed/cluster/cmd/cluster down

.PHONY: e2e
e2e: build image cluster-build ## run orb8 on that Kubernetes and hold its records against the container runtime's, as root
	ORB8_REQUIRE=k8s go test -count=1 -v -p=1 -timeout=60m $(TESTFLAGS) ./testbed/cluster ./testbed/deploy ./testbed/e2e

.PHONY: bench
bench: ## run every benchmark
	go test -run='^$$' -bench=. -benchmem ./...

.PHONY: generate
generate: ## regenerate protobuf, component metadata and BPF code; needs clang-19, llvm-19 and libbpf-dev
	$(TOOL) buf generate
	go generate ./...

.PHONY: check-generated
check-generated: generate ## fail with the difference if the committed generated code is not what the sources say
	@git diff --exit-code -- $(GENERATED)
	@new=$$(git ls-files --others --exclude-standard -- $(GENERATED)); \
		test -z "$$new" || { echo "generated but not committed: $$new" >&2; exit 1; }

.PHONY: web
web: web/node_modules/.package-lock.json ## build the web page into the query extension; needs nodejs and npm
	$(TOOL) buf generate --template web/buf.gen.yaml
	cd web && npm run --silent build

.PHONY: check-web
check-web: web ## fail if the committed web page is not what the sources build
	@git diff --exit-code --stat -- $(WEB)
	@new=$$(git ls-files --others --exclude-standard -- $(WEB)); test -z "$$new" || { echo "built but not committed: $$new" >&2; exit 1; }

.PHONY: web-deps
web-deps: web/node_modules/.package-lock.json ## install what builds and tests the web page

# Nothing of what is installed runs by being installed.
web/node_modules/.package-lock.json: web/package.json web/package-lock.json
	cd web && npm ci --ignore-scripts --no-audit --no-fund

.PHONY: lint
lint: ## vet, gofmt, staticcheck, buf lint, and that the CLI builds on macOS
	@bad=$$(git ls-files '*.go' | xargs gofmt -l); test -z "$$bad" || { echo "run gofmt -w on: $$bad" >&2; exit 1; }
	go vet ./...
	GOOS=darwin GOARCH=arm64 go vet ./cmd/...
	$(TOOL) staticcheck ./...
	$(TOOL) buf lint

.PHONY: clean
clean: ## remove what was built
	rm -rf bin distribution/build
