# What tests/servers/kafka and tests/servers/postgres share: each runs a command with one server around it, on a free
# port of 127.0.0.1, with its data and its log in a temporary folder. Both source this file.
# shellcheck shell=bash
set -euo pipefail

name=${0##*/}
if [ $# -eq 0 ]; then
  # The script's first comment is its manual.
  awk 'NR > 1 && /^#/ { sub(/^# ?/, ""); print; next } NR > 1 { exit }' "$0" >&2
  exit 2
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/rainstorm-$name.XXXXXX")
log="$work/log"
server_pid=
command_pid=
stop_signal=TERM

# How a server is started: on Linux with the promise that it gets its signal even if this script is killed with -9.
tied() {
  if setpriv --pdeathsig keep true 2>/dev/null; then printf 'setpriv --pdeathsig %s' "$stop_signal"; else printf env; fi
}

say() { printf '%s: %s\n' "$name" "$*" >&2; }

fail() {
  say "$1"
  [ ! -s "$log" ] || tail -n 40 "$log" >&2
  exit 1
}

need() { command -v "$1" >/dev/null 2>&1 || fail "$1 is missing: $2"; }

# Below the ports that systems hand out for outgoing connections, so that none takes it before the server does.
free_port() {
  local port
  for _ in $(seq 100); do
    port=$((15000 + RANDOM % 15000))
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
      echo "$port"
      return
    fi
  done
  fail "no free port was found"
}

# Tries a command until it succeeds: for a minute at most, and only while the server lives.
wait_until() {
  for _ in $(seq 600); do
    if "$@" >/dev/null 2>&1; then return; fi
    kill -0 "$server_pid" 2>/dev/null || fail "the server ended before it answered"
    sleep 0.1
  done
  fail "the server did not answer within a minute"
}

stop() {
  local status=$?
  trap - EXIT
  trap '' INT TERM
  if [ -n "$server_pid" ]; then
    kill "-$stop_signal" "$server_pid" 2>/dev/null || true
    for _ in $(seq 100); do
      kill -0 "$server_pid" 2>/dev/null || break
      sleep 0.1
    done
    kill -KILL "$server_pid" 2>/dev/null || true
  fi
  rm -rf "$work"
  exit "$status"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Runs the command to its end; its status is this script's. It runs in the background, because only so does bash hear a
# signal at once, with the script's input, and not deaf to Ctrl-C as background commands otherwise are.
run() {
  local hearing=(env --default-signal=INT --default-signal=QUIT) status=0
  "${hearing[@]}" true 2>/dev/null || hearing=(env)
  trap 'kill -TERM "$command_pid" 2>/dev/null || true' TERM
  trap : INT
  "${hearing[@]}" "$@" <&0 &
  command_pid=$!
  wait "$command_pid" || status=$?
  while kill -0 "$command_pid" 2>/dev/null; do
    status=0
    wait "$command_pid" || status=$?
  done
  exit "$status"
}
