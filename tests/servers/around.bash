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

if [ "${BASH_VERSINFO[0]}" -lt 5 ] || [ "${BASH_VERSINFO[0]}.${BASH_VERSINFO[1]}" = 5.0 ]; then
  echo "$name: this is bash $BASH_VERSION; install bash 5.1 or newer" >&2
  exit 1
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/rainstorm-$name.XXXXXX")
log="$work/log"
# Who wants to see the server die finds its process here.
pid_file="$work/pid"
server_pid=
was_killed=
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

# begin COMMAND...: starts the server, and notes which process it is.
begin() {
  "$@" </dev/null >>"$log" 2>&1 &
  server_pid=$!
  echo "$server_pid" >"$pid_file"
}

# come_back STATUS: the server has ended with it. If somebody killed it with -9, it comes back on the same port and data,
# as it would in a cluster; once killed, until it stays, since what it left behind may be in its way.
come_back() {
  local status=$1
  server_pid=
  if [ "$status" = 137 ]; then was_killed=yes; fi
  if [ -z "$was_killed" ]; then return; fi
  say "the server has ended ($status); it comes back"
  sleep 0.5
  start_server
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
  # Some file systems take minutes to forget the files of hundreds of databases; nobody has to wait for that.
  nohup rm -rf "$work" </dev/null >/dev/null 2>&1 &
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
  local ended=
  until [ "$ended" = "$command_pid" ]; do
    status=0
    wait -n -p ended "$command_pid" ${server_pid:+"$server_pid"} || status=$?
    # A signal ends the waiting, too; then nobody has ended.
    ended=${ended:-}
    if [ -n "$ended" ] && [ "$ended" = "$server_pid" ]; then come_back "$status"; fi
  done
  exit "$status"
}
