#!/usr/bin/env bash
# Lets nodes join: ./register.sh [NODE ...]; without names, all whose public keys are in nodes/.
# Flower lists nodes only by number, so registered/ records which number is whose.
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
umask 077
mkdir -p "$here/registered"
if [[ $# -eq 0 ]]; then
    for key in "$here"/nodes/*.pub; do
        set -- "$@" "$(basename -- "$key" .pub)"
    done
fi
failed=0
for node in "$@"; do
    if [[ -e $here/registered/$node ]]; then
        echo "$node: already registered as $(<"$here/registered/$node")"
        continue
    fi
    if [[ ! -e $here/nodes/$node.pub ]]; then
        echo "$node: there is no $here/nodes/$node.pub" >&2
        failed=1
        continue
    fi
    if answer=$("$here/flwr.sh" supernode register "$here/nodes/$node.pub" @NAME@ --name "$node" 2>&1) &&
        [[ $answer =~ SuperNode\ ([0-9]+)\ registered ]]; then
        echo "${BASH_REMATCH[1]}" >"$here/registered/$node"
        echo "$node: registered as ${BASH_REMATCH[1]}"
    else
        printf '%s: was not registered:\n%s\n' "$node" "$answer" >&2
        failed=1
    fi
done
exit "$failed"
