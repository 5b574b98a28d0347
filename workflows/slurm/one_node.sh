#!/usr/bin/env bash
# A one-node SLURM in a folder of its own, to try recipes on.
#
#   one_node.sh install        install Debian's packages slurm-wlm and munge, if they aren't there
#   one_node.sh start FOLDER   start it; then: export SLURM_CONF=FOLDER/slurm.conf
#   one_node.sh stop FOLDER    cancel its jobs and stop it
#
# It needs no systemd and leaves /etc alone: its own key, sockets and ports let it run beside another
# SLURM. Jobs run as the user who starts it. The node claims 4 CPUs, 64 GiB and 2 GPUs, whatever the
# machine has, so that recipes which ask for them can be tried anywhere; the GPUs are names only. A
# job in the partition `urgent` preempts those in `spot`.
set -euo pipefail
export PATH=$PATH:/usr/sbin:/sbin # where Debian keeps the daemons, and a user's PATH often doesn't look

fail() {
    echo "error: $*" >&2
    exit 1
}

installed() { command -v sbatch slurmctld slurmd munged >/dev/null; }

install() {
    installed && return
    [[ $(id -u) == 0 ]] || fail "no SLURM here; ask an administrator for the packages slurm-wlm and munge"
    apt-get -q update
    DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install slurm-wlm munge
}

free_port() {
    local port
    while port=$((20000 + RANDOM % 12000)); do
        (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
    done
    echo "$port"
}

configure() {
    local node user
    node=$(hostname -s) user=$(id -un)
    mkdir -p "$folder/state" "$folder/spool"
    (umask 077 && head -c 128 /dev/urandom >"$folder/munge.key")
    # Jobs begin at the next look at the queue, by default once a minute; a requeued one not before
    # its old credential has expired, by default after two.
    cat >"$folder/slurm.conf" <<END
ClusterName=one-node
SlurmctldHost=$node(127.0.0.1)
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket,cred_expire=5
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=5
JobRequeue=1
SchedulerParameters=sched_interval=1,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
NodeName=$node NodeAddr=127.0.0.1 CPUs=4 RealMemory=65536 Gres=gpu:2
PartitionName=spot Nodes=$node Default=YES PriorityTier=1
PartitionName=urgent Nodes=$node PriorityTier=2
END
    # Any two devices will do, since nothing here opens them.
    echo "Name=gpu File=/dev/null
Name=gpu File=/dev/zero" >"$folder/gres.conf"
    # Named, though unused: finding out which control groups there are fails where there are none.
    echo "CgroupPlugin=cgroup/v1" >"$folder/cgroup.conf"
}

start() {
    installed || fail "no SLURM here; one_node.sh install"
    mkdir -p "$folder"
    folder=$(realpath "$folder")
    [[ ! -e $folder/slurm.conf ]] || fail "$folder has held a SLURM before; choose an empty folder"
    configure
    export SLURM_CONF=$folder/slurm.conf
    munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" \
        --pid-file="$folder/munged.pid" --log-file="$folder/munged.log" \
        --seed-file="$folder/munge.seed"
    if slurmctld && slurmd; then
        for ((half_second = 0; half_second < 60; half_second++)); do
            [[ $(sinfo --noheader --partition=spot --format=%T 2>/dev/null) != idle ]] || return 0
            sleep 0.5
        done
    fi
    tail -n 5 "$folder"/*.log >&2
    stop
    fail "the node did not come up; the ends of its logs are above"
}

stop() {
    folder=$(realpath "$folder")
    export SLURM_CONF=$folder/slurm.conf
    # The daemons would leave running jobs behind.
    squeue --noheader --format=%A | xargs --no-run-if-empty scancel || true
    for ((half_second = 0; half_second < 60; half_second++)); do
        [[ -n $(squeue --noheader 2>/dev/null) ]] || break
        sleep 0.5
    done
    local daemon pid
    for daemon in slurmd slurmctld munged; do
        pid=$(cat "$folder/$daemon.pid" 2>/dev/null) || continue
        kill "$pid" 2>/dev/null || continue
        while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
    done
}

action=${1-} folder=${2-}
case $action in
    install) install ;;
    start | stop)
        [[ -n $folder ]] || fail "which folder? one_node.sh $action FOLDER"
        "$action"
        ;;
    *) fail "usage: one_node.sh install | start FOLDER | stop FOLDER" ;;
esac
