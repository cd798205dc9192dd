#!/usr/bin/env bash
# Starts example backends, one process for each port, and ends them together.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

help() {
    cat <<'END'
Usage: scripts/start_backends.sh [--ports "PORT..."] [--protocol PROTOCOL]

Starts the example backend of l4lb(1) on each port of 127.0.0.1, named backend1, backend2 and so on, after a release
build where one is needed.

  --ports "PORT..."      the ports, separated by spaces [default: "8001 8002 8003"]
  --protocol PROTOCOL    http or tcp [default: http]
  -h, --help             print this text

Environment: L4LB is the binary to run instead of a release build. Ctrl-C or SIGTERM ends all of them and exits with 0.
When one ends by itself, because its port is taken, say, the others are ended too, and its exit code is ours.
END
}

ports="8001 8002 8003" protocol=http
while (($#)); do
    case $1 in
    -h | --help)
        help
        exit 0
        ;;
    --ports | --protocol)
        (($# >= 2)) || usage_error "$1 needs a value"
        case $1 in
        --ports) ports=$2 ;;
        --protocol) protocol=$2 ;;
        esac
        shift 2
        ;;
    *) usage_error "there is no $1" ;;
    esac
done
read -ra ports <<<"$ports"
((${#ports[@]})) || usage_error "--ports names no port"

l4lb=$(l4lb_binary)
end_all() {
    trap - EXIT
    trap '' INT TERM
    local pid
    # The shell's own list, not one of ours: a signal may come between a start and the line that would note it.
    for pid in $(jobs -p); do
        kill -TERM "$pid" 2>/dev/null || true # it may have ended already
    done
    wait
}
trap end_all EXIT
trap 'exit 0' INT TERM

for index in "${!ports[@]}"; do
    "$l4lb" backend --port "${ports[index]}" --id "backend$((index + 1))" --protocol "$protocol" &
done
wait -n
