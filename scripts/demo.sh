# shellcheck shell=bash disable=SC2154  # root, data, logs, bin and url are those of scripts/run
# The demo account, agent and key of `make run`, and what is told about them. Sourced by scripts/run.

# The operator's commands. Settings come from the caller.
admin() {
  NATS_ADMIN_USER=admin NATS_ADMIN_PASSWORD=$NATS_ADMIN_PASSWORD "$bin/gateway" --json "$@"
}

# The field $1 of the JSON on stdin; of the first, when it is a list.
field() {
  python3 -c 'import json, sys
value = json.load(sys.stdin)
print((value[0] if isinstance(value, list) else value)[sys.argv[1]])' "$1"
}

# Makes account, agent and key once. What the operator changes later stays: only a key that is refused is replaced.
ensure_demo() {
  # shellcheck source=/dev/null
  if [[ -s $data/demo.env ]]; then source "$data/demo.env"; fi
  if [[ -n ${DEMO_KEY:-} && $(http_status "$url/api/v1/health" "$DEMO_KEY") == 200 ]]; then return; fi
  say "making the demo account, its agent and key"
  admin account show demo >/dev/null 2>&1 || admin account create demo --email demo@example.com --verified >/dev/null
  admin channel on demo api >/dev/null
  admin channel on demo webhooks >/dev/null
  DEMO_AGENT=$(admin agent apply demo "$root/agents.toml" | field id)
  DEMO_KEY=$(admin key create demo quickstart 2>/dev/null | field secret)
  printf 'DEMO_KEY=%s\nDEMO_AGENT=%s\n' "$DEMO_KEY" "$DEMO_AGENT" >"$data/demo.env"
}

# A value as both a shell and a reader of plain NAME=VALUE lines understand it.
quoted() {
  if [[ $1 =~ ^[A-Za-z0-9_./:@?=%,+-]*$ ]]; then printf '%s' "$1"; else printf "'%s'" "${1//\'/\'\\\'\'}"; fi
}

write_run_env() {
  local name
  local -A values=(
    [FRONTDESK_URL]=$url
    [FRONTDESK_KEY]=$DEMO_KEY
    [FRONTDESK_AGENT]=$DEMO_AGENT
    [FRONTDESK_METRICS_URL]=$(reachable "$FRONTDESK_METRICS_LISTEN")/metrics
    [FRONTDESK_ADMIN]=$root/scripts/admin
    [FRONTDESK_DATA]=$data
    [FRONTDESK_BIN]=$bin
    [DATABASE_URL]=$DATABASE_URL
    [NATS_URL]=$NATS_URL
    [NATS_ADMIN_USER]=admin
    [NATS_ADMIN_PASSWORD]=$NATS_ADMIN_PASSWORD
  )
  for name in FRONTDESK_{URL,KEY,AGENT,METRICS_URL,ADMIN,DATA,BIN} DATABASE_URL NATS_{URL,ADMIN_USER,ADMIN_PASSWORD}; do
    printf '%s=%s\n' "$name" "$(quoted "${values[$name]}")"
  done >"$data/run.env.new"
  mv "$data/run.env.new" "$data/run.env"
}

announce() {
  cat <<TEXT

Frontdesk is ready at $url. Try it:

curl -sS $url/api/v1/chat -H 'Authorization: Bearer $DEMO_KEY' -H 'Content-Type: application/json' -d '{"employee_id":"$DEMO_AGENT","prompt":"Hello!"}'

Addresses and keys are in $data/run.env, logs in $logs.
Operator's commands: scripts/admin --help. Ctrl-C or \`make stop\` ends it; the data stays.
TEXT
}
