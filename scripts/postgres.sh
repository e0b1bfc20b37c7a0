# shellcheck shell=bash
# A PostgreSQL for tests: its own directory and port, gone afterwards. It will not run as root, so root steps down.
# Sourced after lib.sh; start_postgres sets postgres_url. With postgres_durable=yes it writes through, as in service; with
# over_restarts its own death loses nothing.

postgres_url=
postgres_dir=
postgres_bin=
postgres_user=
postgres_durable=no

# The directory with initdb and pg_ctl, of the newest version that is here.
find_postgres() {
  local candidate
  for candidate in \
    "$(dirname "$(command -v initdb 2>/dev/null || echo /nowhere/x)")" \
    "$(pg_config --bindir 2>/dev/null || echo /nowhere)" \
    $(printf '%s\n' /usr/lib/postgresql/*/bin | sort -rV); do
    if [[ -x $candidate/initdb && -x $candidate/pg_ctl && -x $candidate/postgres ]]; then
      printf '%s\n' "$candidate"
      return
    fi
  done
  return 1
}

# Runs a command as the user that PostgreSQL runs as, in a directory that this user may enter.
as_postgres() (
  cd "$postgres_dir" || return
  if [[ -n $postgres_user ]]; then runuser -u "$postgres_user" -- "$@"; else "$@"; fi
)

# A directory that the user of PostgreSQL can reach and owns: below /tmp, whatever TMPDIR says.
make_postgres_dir() {
  postgres_dir=$(mktemp -d /tmp/frontdesk-postgres.XXXXXX)
  if [[ $(id -u) == 0 ]]; then
    postgres_user=nobody
    if id postgres >/dev/null 2>&1; then postgres_user=postgres; fi
    chown "$postgres_user" "$postgres_dir"
  fi
}

# Nothing in it outlives the tests, so nothing waits for the disk; unless that is what is measured. Commits are kept over
# a death of the server alone: that takes no disk.
configure_postgres() {
  printf '%s\n' "port = $1" "listen_addresses = '127.0.0.1'" "unix_socket_directories = ''" "max_connections = 500"
  case $postgres_durable in
    yes) ;;
    over_restarts) printf '%s\n' "fsync = off" "full_page_writes = off" ;;
    *) printf '%s\n' "fsync = off" "synchronous_commit = off" "full_page_writes = off" ;;
  esac
}

launch_postgres() {
  configure_postgres "$1" >>"$postgres_dir/data/postgresql.conf"
  control_postgres start
}

# Ends the server at once, or starts it again.
control_postgres() {
  case $1 in
    stop) as_postgres "$postgres_bin/pg_ctl" stop --silent -m immediate -D "$postgres_dir/data" >/dev/null 2>&1 ;;
    start)
      as_postgres "$postgres_bin/pg_ctl" start --silent -w -t 60 -D "$postgres_dir/data" -l "$postgres_dir/log" \
        </dev/null >/dev/null 2>&1
      ;;
    *) die "neither stop nor start: $1" ;;
  esac
}

start_postgres() {
  local port
  postgres_bin=$(find_postgres) || { apt_install postgresql; postgres_bin=$(find_postgres); } ||
    die "needs PostgreSQL (initdb, pg_ctl): apt-get install postgresql"
  make_postgres_dir
  as_postgres "$postgres_bin/initdb" -D "$postgres_dir/data" --username=postgres --auth=trust --encoding=UTF8 \
    --no-locale --no-sync >"$postgres_dir/initdb" 2>&1 || { cat "$postgres_dir/initdb" >&2; die "initdb failed"; }
  for _ in 1 2 3; do # the free port may be taken by the time it is used
    port=$(free_port)
    if launch_postgres "$port"; then
      # shellcheck disable=SC2034  # for the caller
      postgres_url=postgres://postgres@127.0.0.1:$port/postgres
      return
    fi
  done
  tail -n 20 "$postgres_dir/log" >&2 || true
  die "PostgreSQL did not start"
}

stop_postgres() {
  [[ -n $postgres_dir ]] || return 0
  if [[ -f $postgres_dir/data/postmaster.pid ]]; then control_postgres stop || true; fi
  rm -rf "$postgres_dir"
  postgres_dir=
}
