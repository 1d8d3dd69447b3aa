#!/usr/bin/env bash
# Flower's command line, connected to this federation: in the app's folder, DIR/operator/flwr.sh run . @NAME@ --stream
# SUPERLINK=@INNER@ reaches a SuperLink behind its gateway, on the same machine or through a tunnel.
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
umask 077
export FLWR_HOME="$here" FLWR_DISABLE_UPDATE_CHECK=1 FLWR_TELEMETRY_ENABLED=0
certificate=${here//\\/\\\\}/ca.crt
# Flower needs an absolute path here, and this folder may have been moved.
cat >"$here/config.toml.$$" <<END
[superlink]
default = "@NAME@"

[superlink.@NAME@]
address = "${SUPERLINK:-@ADDRESS@}"
root-certificates = "${certificate//\"/\\\"}"
END
mv "$here/config.toml.$$" "$here/config.toml"
exec flwr "$@"
