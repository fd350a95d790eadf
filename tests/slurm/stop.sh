#!/usr/bin/env bash
# Stops what start.sh started, so that nothing else on this machine takes it for a cluster.
set -u
for daemon in slurmd slurmctld; do
    [[ -s /run/$daemon.pid ]] && kill "$(cat "/run/$daemon.pid")" 2>/dev/null
done
exit 0
