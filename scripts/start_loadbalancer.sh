#!/usr/bin/env bash
# Starts l4lb without a file, over the backends of start_backends.sh or others.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

help() {
    cat <<'END'
Usage: scripts/start_loadbalancer.sh [--host HOST] [--port PORT] [--algorithm ALGORITHM] [--backend HOST:PORT]...

Starts l4lb as a TCP balancer, after a release build where one is needed.

  --host HOST            listen on this address [default: 0.0.0.0]
  --port PORT            listen on this port [default: 8080]
  --algorithm ALGORITHM  how a backend is picked [default: round_robin]
  --backend HOST:PORT    a server to send connections to; once for each server
                         [default: 127.0.0.1:8001, 127.0.0.1:8002 and 127.0.0.1:8003]
  -h, --help             print this text

Environment: L4LB is the binary to run instead of a release build. Ctrl-C or SIGTERM drains and ends it.
The exit codes are those of l4lb(1). For everything else use a configuration file: l4lb -c config/lb.toml
END
}

host=0.0.0.0 port=8080 algorithm=round_robin backends=()
while (($#)); do
    case $1 in
    -h | --help)
        help
        exit 0
        ;;
    --host | --port | --algorithm | --backend)
        (($# >= 2)) || usage_error "$1 needs a value"
        case $1 in
        --host) host=$2 ;;
        --port) port=$2 ;;
        --algorithm) algorithm=$2 ;;
        --backend) backends+=("$2") ;;
        esac
        shift 2
        ;;
    *) usage_error "there is no $1" ;;
    esac
done
if ((${#backends[@]} == 0)); then
    backends=(127.0.0.1:8001 127.0.0.1:8002 127.0.0.1:8003)
fi

l4lb=$(l4lb_binary)
# Replaces the shell, so that signals reach l4lb itself.
exec "$l4lb" --host "$host" --port "$port" --algorithm "$algorithm" "${backends[@]/#/--backend=}"
