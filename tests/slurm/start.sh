#!/usr/bin/env bash
# Starts a real Slurm on this machine: munge, slurmctld, and slurmd with eight pretend GPUs.
# Needs root, and Debian to install what is missing. Call it again to start it afresh.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
host=$(hostname -s)
if ! command -v slurmctld >/dev/null; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq slurm-wlm munge >/dev/null
fi

mkdir -p /etc/slurm /var/spool/slurmctld /var/spool/slurmd /var/log/slurm /run/munge
chown -R munge:munge /run/munge /var/lib/munge /var/log/munge /etc/munge
if [[ ! -s /etc/munge/munge.key ]]; then
    head -c 1024 /dev/urandom >/etc/munge/munge.key
    chown munge:munge /etc/munge/munge.key && chmod 400 /etc/munge/munge.key
fi
munge -n >/dev/null 2>&1 || su munge -s /bin/sh -c 'munged --force'

# Slurm hands out a GPU only where a device file exists: these are /dev/null under other names.
for i in {0..7}; do [[ -e /dev/fakegpu$i ]] || mknod "/dev/fakegpu$i" c 1 3; done
printf 'AutoDetect=off\nName=gpu File=/dev/fakegpu[0-7]\n' >/etc/slurm/gres.conf
memory=$(awk '/MemTotal/ {print int($2 / 1024 * 0.85)}' /proc/meminfo)
sed "s/@HOST@/$host/g; s/@MEM_MB@/$memory/g" "$here/slurm.conf.in" >/etc/slurm/slurm.conf

for daemon in slurmd slurmctld; do
    if [[ -s /run/$daemon.pid ]] && kill "$(cat "/run/$daemon.pid")" 2>/dev/null; then sleep 1; fi
done
rm -rf /var/spool/slurmctld/*
slurmctld
sleep 1
slurmd
for _ in {1..30}; do
    [[ $(sinfo -h -o %T 2>/dev/null) == idle ]] && exit 0
    sleep 1
done
echo "Slurm did not come up: see /var/log/slurm" >&2
exit 1
