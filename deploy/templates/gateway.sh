#!/usr/bin/env bash
# Lets nodes through to the SuperLink, but nobody to the API that starts runs: ./gateway.sh [SUPERLINK]
# Needs nginx. SUPERLINK is where ./start.sh --host @LOOPBACK@ --port @INNER_PORT@ listens.
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
umask 077
mkdir -p "$here/gateway"
sed "s/SUPERLINK/${1:-@INNER@}/" "$here/gateway.conf" >"$here/gateway/nginx.conf"
PATH="$PATH:/usr/sbin:/usr/local/sbin" # nginx is often there, outside a user's PATH
exec nginx -e stderr -p "$here/gateway/" -c nginx.conf -g 'daemon off;'
