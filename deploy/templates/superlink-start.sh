#!/usr/bin/env bash
# Starts the SuperLink with TLS, open only to registered nodes. Arguments are added after flower-superlink's own and
# override them: ./start.sh --host @LOOPBACK@ --port @INNER_PORT@ puts it behind ./gateway.sh.
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
umask 077
export FLWR_HOME="$here/flwr-home" FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION=1
export FLWR_DISABLE_UPDATE_CHECK=1 FLWR_TELEMETRY_ENABLED=0
exec flower-superlink \
    --host @LISTEN@ --port @PORT@ \
    --ssl-ca-certfile "$here/ca.crt" --ssl-certfile "$here/server.crt" --ssl-keyfile "$here/server.key" \
    --enable-supernode-auth \
    --database "$here/state.db" \
    --isolation subprocess \
    "$@"
