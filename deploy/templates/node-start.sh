#!/usr/bin/env bash
# Starts this site's SuperNode: ./start.sh DATA [KEY=VALUE ...]
#   DATA       the site's images: a folder in the released layout, or a pack
#   KEY=VALUE  more of the node's config: cache-gib=20, cache-dir="'/big disk'", or partition-id=0 num-partitions=3
#              where sites share one copy of the data
# NODE_PORT sets another port for the SuperNode's own API, which listens on this machine only; NODE_RETRY_SECONDS sets
# how long to wait before a SuperNode that ended is restarted.
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
if [[ $# -eq 0 || ! -e $1 ]]; then
    echo "start.sh: DATA is '${1-}'; it must be this site's folder of images, or a pack: ./start.sh DATA [KEY=VALUE ...]" >&2
    exit 2
fi
data=$(cd -- "$(dirname -- "$1")" && pwd -P)/$(basename -- "$1")
if [[ $data == *\'* ]]; then
    echo "start.sh: DATA is \"$data\"; Flower cannot take a path with a ' in it." >&2
    exit 2
fi
shift
umask 077
export FLWR_HOME="$here/flwr-home" FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION=1
export FLWR_DISABLE_UPDATE_CHECK=1 FLWR_TELEMETRY_ENABLED=0

# A SuperNode reconnects forever, but ends if the SuperLink refuses it: not registered yet, or still thought online after
# a crash. It is then restarted; a stop, or being unregistered, ends the script.
set -m
stopped="" node=""
stop() {
    stopped=yes
    kill -TERM "$node" 2>/dev/null || true
}
trap stop TERM INT HUP
until [[ $stopped ]]; do
    flower-supernode \
        --superlink @ADDRESS@ \
        --root-certificates "$here/ca.crt" \
        --auth-supernode-private-key "$here/node.key" \
        --port "${NODE_PORT:-@NODE_PORT@}" \
        --isolation subprocess \
        --node-config "data-dir='$data'${*:+ $*}" &
    node=$!
    code=0
    wait "$node" || code=$?
    while kill -0 "$node" 2>/dev/null; do # a signal ends the wait before the SuperNode ends
        code=0
        wait "$node" || code=$?
    done
    kill -KILL -- "-$node" 2>/dev/null || true # what a SuperNode that crashed or was refused leaves behind
    if [[ ! $stopped && $code -eq 0 ]]; then
        echo "start.sh: the SuperLink shut this node out: it was unregistered, or this machine's clock is wrong" \
            "(more than 5 seconds ahead of the SuperLink's, or 5 minutes behind)" >&2
    fi
    if [[ $stopped || $code -eq 0 || $code -eq 2 ]]; then
        exit "$code"
    fi
    echo "start.sh: the SuperNode ended with code $code; restarting it in ${NODE_RETRY_SECONDS:-15} seconds" >&2
    sleep "${NODE_RETRY_SECONDS:-15}" &
    node=$!
    wait "$node" || true
done
