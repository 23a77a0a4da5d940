#!/usr/bin/env bash
# Checks this host, then watches it with the standalone configuration until Ctrl-C. Needs root and `make build`.
set -euo pipefail
cd "$(dirname "$0")/.."

query=${ORB8_QUERY_ENDPOINT:-127.0.0.1:9090}
prometheus=${ORB8_PROMETHEUS_ENDPOINT:-127.0.0.1:9091}
export ORB8_AGENT=$query
# Garbage may be half as much as what is in use, not as much: a fifth less memory for some more work.
export GOGC=${GOGC:-50}

bin/orb8 doctor

# Says what to do next once the query API answers; gives up with the collector, whose process this shell becomes.
collector=$$
{
	until bin/orb8 status >/dev/null 2>&1; do
		kill -0 "$collector" || exit 0
		sleep 0.2
	done
	cat <<-NEXT

		orb8 is watching this host. In another terminal:

		  bin/orb8 flows                          who talks to whom
		  bin/orb8 flows --follow                 as it happens
		  bin/orb8 syscalls                       which system calls run
		  bin/orb8 top                            who talks most, now
		  bin/orb8 status                         what was counted, and what was lost
		  http://$query/                  all of it in a browser
		  curl -s $prometheus/metrics | grep orb8_

		Ctrl-C stops it.

	NEXT
} &
exec bin/orb8-collector --config distribution/config/standalone.yaml
