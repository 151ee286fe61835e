# Sourced by `run` and `serve`, in this folder: starts the server and the manager on ports of their
# own, and ends both with the script. Sets $port, $page and $folder.

say() { echo "examples/photo: $*" >&2; }
fail() { say "$*"; exit 1; }

# The path of a program: what was built here last, or what is installed.
program() {
    for built in "${CARGO_TARGET_DIR:-../../target}"/release/"$1" "${CARGO_TARGET_DIR:-../../target}"/debug/"$1"; do
        [ -x "$built" ] && echo "$built" && return
    done
    command -v "$1"
}

# Waits until a file has a line with this text, and prints what follows it there, to the next blank.
wait_for() {
    left=300
    until grep -q "$2" "$1"; do
        left=$((left - 1))
        [ "$left" -gt 0 ] || fail "nothing says \"$2\": $(tail -n 3 "$1")"
        sleep 0.1
    done
    sed -n "s/.*$2\([^ ]*\).*/\1/p" "$1" | head -n 1
}

end() {
    trap - EXIT HUP INT TERM
    # The manager first: it lets its commands finish.
    for pid in ${manager:-} ${server:-}; do
        kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null
    done
    rm -rf "$folder"
}

for tool in gearman:gearman-tools convert:imagemagick; do
    command -v "${tool%:*}" >/dev/null || fail "${tool%:*} is missing: sudo apt install ${tool#*:}"
done
if ! program ringgeard >/dev/null || ! program ringgear-manager >/dev/null; then
    cargo build --release -p ringgear -p ringgear-manager || fail "the programs can't be built"
fi

folder=$(mktemp -d)
trap end EXIT
trap 'exit 130' HUP INT TERM
MAIL_FOLDER=$folder/mail
export MAIL_FOLDER
mkdir "$MAIL_FOLDER"
touch "$folder/server.log" "$folder/manager.log"

env -u RINGGEARD_CONFIG_FILE "$(program ringgeard)" --listen 127.0.0.1:0 --http 127.0.0.1:0 2>>"$folder/server.log" &
server=$!
port=$(wait_for "$folder/server.log" 'listening on 127.0.0.1:') || exit 1
page=http://127.0.0.1:$(wait_for "$folder/server.log" 'HTTP on 127.0.0.1:') || exit 1
GEARMAN_SERVERS=127.0.0.1:$port "$(program ringgear-manager)" --config-file manager.toml 2>>"$folder/manager.log" &
manager=$!
wait_for "$folder/manager.log" 'the instance starts' >/dev/null || exit 1
