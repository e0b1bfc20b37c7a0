# shellcheck shell=bash
# What the scripts share: words to the user, places, and small helpers. Sourced, never run.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf '%s\n' "$*" >&2; }
die() { say "${0##*/}: $*"; exit 1; }

# The absolute data directory, made if need be.
data_dir() {
  (umask 077 && mkdir -p "${FRONTDESK_DATA:-$root/.data}")
  (cd "${FRONTDESK_DATA:-$root/.data}" && pwd)
}

# Runs a command as root.
as_root() {
  if [[ $(id -u) == 0 ]]; then "$@"; else sudo "$@"; fi
}

# Installs Debian packages; without apt it says what is missing.
apt_install() {
  command -v apt-get >/dev/null || die "needs $*: install it, there is no apt-get here"
  [[ $(id -u) == 0 ]] || command -v sudo >/dev/null || die "needs $*: install it, or run this as root or with sudo"
  say "installing $* with apt-get"
  as_root apt-get update -qq >&2 || say "apt-get update failed; trying with the lists that are here"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2
}

need_python() {
  command -v python3 >/dev/null || apt_install python3 python3-pip
}

need_rust() {
  command -v cargo >/dev/null || die "needs Rust: see https://rustup.rs"
  command -v cc >/dev/null || apt_install build-essential
}

# For the tests: they run the JavaScript reader of the second API's documentation as it stands there.
need_node() {
  command -v node >/dev/null || apt_install nodejs
}

# For the tests: they run the guide's commands as they stand there.
need_curl() {
  command -v curl >/dev/null || apt_install curl
}

# For the tests: they send what two servers could read differently through this one too. Each starts its own.
need_nginx() {
  PATH=$PATH:/usr/sbin command -v nginx >/dev/null || apt_install nginx-light
}

# A TCP port on the loopback that is free now.
free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# The status of GET $1 (with the key $2, if given); 000 when nothing answers.
http_status() {
  python3 - "$@" <<'PY'
import sys, urllib.error, urllib.request
request = urllib.request.Request(sys.argv[1])
if len(sys.argv) > 2:
    request.add_header("Authorization", "Bearer " + sys.argv[2])
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
try:
    print(opener.open(request, timeout=3).status)
except urllib.error.HTTPError as error:
    print(error.code)
except OSError:
    print("000")
PY
}

# Raises the soft limit of open files to the hard one: every waiting caller is one.
raise_open_files() {
  ulimit -n "$(ulimit -Hn)" 2>/dev/null || true
}

# Where cargo puts what it builds.
target_dir() {
  cargo metadata --no-deps --format-version 1 --manifest-path "$root/Cargo.toml" |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])'
}
