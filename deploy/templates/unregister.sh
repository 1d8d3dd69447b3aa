#!/usr/bin/env bash
# Shuts nodes out: ./unregister.sh NODE ...; their keys are refused from then on, and their SuperNodes end.
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
for node in "$@"; do
    if [[ ! -e $here/registered/$node ]]; then
        echo "$node: is not in $here/registered; if Flower lists it, shut it out by number:" \
            "$here/flwr.sh supernode unregister NUMBER @NAME@" >&2
        exit 1
    fi
    "$here/flwr.sh" supernode unregister "$(<"$here/registered/$node")" @NAME@
    rm -- "$here/registered/$node"
done
