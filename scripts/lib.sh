# Shared by the scripts beside it; meant to be sourced by bash.

# Prints the path of the l4lb to run: $L4LB where it is set, else the release build, brought up to date first where
# there is a cargo to do it.
l4lb_binary() {
    local root target
    if [[ -n ${L4LB:-} ]]; then
        printf '%s\n' "$L4LB"
        return
    fi
    root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
    target=${CARGO_TARGET_DIR:-$root/target}
    if command -v cargo >/dev/null; then
        (cd "$root" && cargo build --release --quiet --bin l4lb) >&2 || return
    elif [[ ! -x $target/release/l4lb ]]; then
        echo "there is no $target/release/l4lb and no cargo to build it; install Rust, or set L4LB to a binary" >&2
        return 1
    fi
    printf '%s\n' "$target/release/l4lb"
}

# Ends the script with the exit code for usage errors.
usage_error() {
    echo "$(basename "$0"): $1; see --help" >&2
    exit 2
}
