# shellcheck shell=bash disable=SC2154  # root comes from lib.sh
# Processes that outlive a command, remembered in files. An id alone may be somebody else's by now, so the moment and
# the boot in which the process started are kept beside it. Sourced after lib.sh; the caller sets run_dir.

run_dir=${run_dir:-}

# "ID START BOOT" of a process that runs.
identity() {
  local stat state start
  { stat=$(<"/proc/$1/stat"); } 2>/dev/null || return 1
  # Behind the name, which may hold anything: the state, and 19 fields later the start.
  read -r state _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ start _ <<<"${stat##*) }"
  [[ $state != Z && $state != X ]] || return 1
  printf '%s %s %s\n' "$1" "$start" "$(</proc/sys/kernel/random/boot_id)"
}

remember() { identity "$2" >"$run_dir/$1.pid" || true; }

forget() { rm -f "$run_dir/$1.pid"; }

# The id of the remembered process, if it still runs.
pid_of() {
  local known
  [[ -s $run_dir/$1.pid ]] || return 1
  known=$(<"$run_dir/$1.pid")
  [[ $(identity "${known%% *}") == "$known" ]] || return 1
  printf '%s\n' "${known%% *}"
}

# Sends signal $1 to each of the remembered processes that still runs.
signal() {
  local name pid
  for name in "${@:2}"; do
    if pid=$(pid_of "$name"); then kill "-$1" "$pid" 2>/dev/null || true; fi
  done
}

# The remembered ones of these kinds: `remembered worker` gives worker-1, worker-2 ...
remembered() {
  local file name
  for file in "$run_dir/$1.pid" "$run_dir/$1"-*.pid; do
    name=${file##*/}
    if [[ -e $file ]]; then printf '%s\n' "${name%.pid}"; fi
  done
}

# Asks them to end and waits for it. They finish what they have begun, each within its own grace time.
end() {
  local name
  signal TERM "$@"
  for name in "$@"; do
    while pid_of "$name" >/dev/null; do sleep 0.1 || true; done
    forget "$name"
  done
}

# What a second and a third wish to stop do: drop what still runs, then no more asking.
hurries=0
hurry() {
  local names
  mapfile -t names < <(remembered gateway; remembered worker; remembered nats)
  hurries=$((hurries + 1))
  if ((hurries == 1)); then
    say "dropping what still runs (once more: kill)"
    signal TERM "${names[@]}"
  else
    signal KILL "${names[@]}"
  fi
}

# Ends the local model, which scripts/model looks after.
end_model() {
  [[ -s $run_dir/model.port ]] || return 0
  "$root/scripts/model" stop "$(<"$run_dir/model.port")" || true
  rm -f "$run_dir/model.port"
}

# Ends all parts: the gateway first, since its open calls need the workers, and the workers need NATS.
end_all() {
  local part names
  trap hurry INT TERM HUP
  for part in gateway worker nats; do
    mapfile -t names < <(remembered "$part")
    end "${names[@]}"
  done
  end_model
}
