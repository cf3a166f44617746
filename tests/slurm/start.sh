#!/usr/bin/env bash
# Run Slurm on this machine as one node, or end it: `start.sh FOLDER` and `start.sh --end FOLDER`.
# The folder holds its configuration, state and logs; commands of Slurm find it by SLURM_CONF=FOLDER/slurm.conf.
# It needs root, and the Debian packages slurmctld, slurmd, slurm-client and munge.
set -euo pipefail
if [ "$1" = --end ]; then
  cd "$2" 2>/dev/null || exit 0
  export SLURM_CONF="$PWD/slurm.conf"
  scancel --user="$(id -un)" 2>/dev/null || true
  for _ in $(seq 50); do [ -z "$(squeue --noheader 2>/dev/null)" ] && break || sleep 0.2; done
  for daemon in slurmd slurmctld munged; do
    pid=$(cat "$daemon.pid" 2>/dev/null) && kill "$pid" 2>/dev/null || continue
    for _ in $(seq 50); do kill -0 "$pid" 2>/dev/null && sleep 0.2 || break; done
  done
  exit 0
fi
mkdir -p "$1" && cd "$1" && folder=$(pwd)
mkdir -p state spool munge
chmod 755 . && chmod 700 munge
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
host=$(hostname -s)
cat >slurm.conf <<CONF
ClusterName=one-node
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
SlurmUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$folder/munge/socket,cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
KillWait=2
MinJobAge=20
MpiDefault=none
SlurmdParameters=config_overrides
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
NodeName=$host NodeAddr=127.0.0.1 CPUs=8 RealMemory=1000 State=UNKNOWN
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
head -c 128 /dev/urandom >munge/key && chmod 600 munge/key
munged --force --key-file="$folder/munge/key" --socket="$folder/munge/socket" --pid-file="$folder/munged.pid" \
  --log-file="$folder/munge/log" --seed-file="$folder/munge/seed"
export SLURM_CONF="$folder/slurm.conf"
slurmctld && slurmd
for _ in $(seq 50); do
  sinfo --noheader --states=idle 2>/dev/null | grep -q . && exit
  sleep 0.2
done
for log in slurmctld.log slurmd.log munge/log; do tail -n 5 "$log" >&2 || true; done
exit 1
