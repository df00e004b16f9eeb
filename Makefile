# gatehouse. `make run` starts the development mode, `make test` runs every test.
GO ?= go
BIN := bin
CACHE ?= $(if $(XDG_CACHE_HOME),$(XDG_CACHE_HOME),$(HOME)/.cache)/gatehouse
export GATEHOUSE_TEST_CONSUL ?= $(CACHE)/consul

.PHONY: run test test-authserver test-edge fuzz quick build screenshots bench bench-authserver lint servers cluster clean

run:
	$(GO) run ./cmd/gatehouse dev

build:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags='-s -w' -o $(BIN)/gatehouse ./cmd/gatehouse

# Everything, against real servers, which it installs first.
test: servers
	GATEHOUSE_TEST_REQUIRE=all $(GO) test -race -timeout 20m ./...
	$(GO) test -run 'Alloc' ./cmd/gatehouse ./gateway/... ./plugins/... ./discovery ./routes

# The authorization server alone, and the clients of others against it.
test-authserver: servers
	GATEHOUSE_TEST_REQUIRE=all $(GO) test -race -timeout 20m ./authserver/... ./loadtest/authbench

# The proxy alone: its packages and plugins, request matrix, framing, attacks,
# content, limits, slow clients, and the proxies of others behind it.
test-edge: servers
	GATEHOUSE_TEST_REQUIRE=all $(GO) test -race -timeout 20m ./gateway/... ./plugins/... ./routes ./loadtest/desync ./loadtest/edge ./loadtest/differential ./loadtest/slow

# Each fuzz target for ten minutes; FUZZTIME=1h for longer.
fuzz:
	FUZZTIME=$${FUZZTIME:-10m} .ci/fuzz

# What needs no server.
quick:
	$(GO) test ./...

# The pictures of every page, for docs/pages.md.
screenshots:
	$(GO) test ./authserver -count=1 -run Screenshots -screenshots

# Debian's packages and a Consul server, where they are missing.
servers:
	deploy/test-servers

# The topology of docker-compose.yml as processes on loopback, until Ctrl-C.
cluster: servers
	$(GO) run ./loadtest/cluster

bench:
	$(GO) run ./loadtest/bench -write

# The authorization server's endpoints beside npm oidc-provider.
bench-authserver: servers
	GATEHOUSE_TEST_REQUIRE=all $(GO) test -count=1 -timeout 30m -v ./loadtest/authbench -measure -write

lint:
	test -z "$$(gofmt -l $$(git ls-files '*.go'))"
	$(GO) vet ./...
	GOOS=darwin $(GO) vet ./cmd/... ./gateway/... ./routes/... ./plugins/... ./discovery/... ./authserver/...
	$(GO) tool staticcheck ./...
	@$(GO) tool govulncheck ./... || { status=$$?; [ $$status -ne 3 ] && echo "govulncheck was skipped: its database cannot be reached" || exit $$status; }

clean:
	rm -rf $(BIN)
