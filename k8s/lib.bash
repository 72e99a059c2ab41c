# What the scripts here share. The caller sets `dry` (print, don't run), `force`, and `context`, kubectl's name for the
# cluster.
# shellcheck shell=bash disable=SC2154

fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

step() {
  printf '\n=== %s\n' "$*"
}

# run COMMAND...: prints it, and runs it unless this is a dry run.
run() {
  printf '+'
  printf ' %q' "$@"
  printf '\n'
  [ -n "$dry" ] || "$@"
}

kube() {
  run kubectl --context "$context" "$@"
}

# apply ARGUMENT...: on the server's side, so that applying twice changes nothing and long manifests fit.
apply() {
  kube apply --server-side --force-conflicts "$@"
}

# patch NAMESPACE WHAT JSON
patch() {
  kube --namespace "$1" patch "$2" --type merge --patch "$3"
}

# need WHAT ENOUGH FOUND NEEDED: one line of the preflight.
need() {
  local mark=ok
  [ "$2" = 1 ] || mark=NO
  printf '  %-22s %-3s found %-34s needed %s\n' "$1" "$mark" "${3:-nothing}" "$4"
  [ "$mark" = ok ] || lacking=$((lacking + 1))
}

# Nothing here may stop reading early (`head`, `grep -q`): under pipefail, who still writes then fails.

# preflight kind|minikube: each thing that is needed, and what there is of it.
preflight() {
  local lacking=0 tool version cores memory disk
  for tool in docker kubectl curl "$1"; do
    version=''
    if command -v "$tool" >/dev/null; then
      case $tool in
        docker) version=$(docker version --format '{{.Server.Version}}' 2>/dev/null) || version='no engine answers' ;;
        kubectl) version=$(kubectl version --client 2>/dev/null | sed -n 1p) || version='' ;;
        curl) version=$(curl --version | sed -n 1p | cut -d' ' -f1,2) || version='' ;;
        *) version=$("$tool" version 2>/dev/null | sed -n 1p) || version='' ;;
      esac
    fi
    case $version in
      '' | 'no engine answers') need "$tool" 0 "$version" "any recent version" ;;
      *) need "$tool" 1 "$version" "any recent version" ;;
    esac
  done
  cores=$(docker info --format '{{.NCPU}}' 2>/dev/null) || cores=0
  memory=$(docker info --format '{{.MemTotal}}' 2>/dev/null) || memory=0
  memory=$((memory / 1048576))
  disk=$(($(df -Pk . | awk 'NR == 2 { print $4 }') / 1048576))
  need "cores for docker" "$((cores >= 4))" "$cores" "4"
  need "memory for docker" "$((memory >= 5800))" "$memory MiB" "6 GiB"
  need "free disk" "$((disk >= 15))" "$disk GiB" "15 GiB"
  [ "$lacking" = 0 ] && return
  if [ -n "$dry" ] || [ -n "$force" ]; then
    echo "  going on all the same"
  else
    fail "$lacking of these are missing; install or free them, or say --force"
  fi
}
