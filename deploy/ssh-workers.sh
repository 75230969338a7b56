#!/bin/sh
# Start a worker on each GPU of some hosts, by ssh, on a study that `run` has created; on a host
# without GPUs one on its CPU.
#
#   HPO_STORAGE=postgresql+psycopg2://me:PASSWORD@db/hpo deploy/ssh-workers.sh STUDY HOST...
#
# HPO_PROGRAM is the program on the hosts (default: /opt/hpo/venv/bin/python -P -m hpo). The workers
# end when all trials have ended. Their logs are in ~/hpo-logs on each host.
set -eu
study=$1
shift
: "${HPO_STORAGE:?set the URL of the database, which the hosts reach}"
program=${HPO_PROGRAM:-/opt/hpo/venv/bin/python -P -m hpo}

on_host() {
    cat << 'SCRIPT'
study=$1
shift
mkdir -p -m 700 ~/hpo-logs
gpus=$(nvidia-smi --query-gpu=uuid --format=csv,noheader 2> /dev/null) || gpus=
number=0
for gpu in ${gpus:-none}; do
    device=cuda
    [ "$gpu" != none ] || { device=cpu; gpu=; }
    CUDA_VISIBLE_DEVICES=$gpu nohup setsid "$@" worker --study_name "$study" \
        --slot "$device:$number" --device "$device" \
        < /dev/null >> ~/hpo-logs/"worker-$number.log" 2>&1 &
    number=$((number + 1))
done
echo "$(uname -n): started $number"
SCRIPT
}

for host in "$@"; do
    # The URL travels on standard input: every user of a host can read its command lines.
    { printf '%s\n' "$HPO_STORAGE"; on_host; } |
        ssh -o BatchMode=yes "$host" \
            "read -r HPO_STORAGE; export HPO_STORAGE; exec sh -s -- '$study' $program"
done
