#!/usr/bin/env bash
#
# Hands a command over to backup_restore.py: inside the service's running container, in a fresh one beside a stopped
# service, or right here where there is no engine. It holds no backup logic; `./backup.sh --help` shows the commands.
#
#   BACKUP_RUNNER       auto (default), docker, local
#   BACKUP_SERVICE      the service in the compose file that commands run in (backend)
#   BACKUP_APP_SERVICE  the app's, which --stop stops, where that is another one
#
# All may be in backup.toml too, as plain lines: runner = "local"

# `sh backup.sh` is another shell, or bash with the rules of POSIX, where older ones do not read this script.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set +o posix
set -Eeuo pipefail
unset CDPATH

# Started by podman-compose in the place of podman: see `podman_commands`.
if [ -n "${BACKUP_PODMAN_COMMANDS:-}" ]; then
  case ${1:-} in ps | run | start | stop) printf '%s\0' "$#" "$@" >>"$BACKUP_PODMAN_COMMANDS" && exit ;; esac
  exec podman "$@"
fi
export HOME="${HOME:-$(cd ~ && pwd)}"
export PATH="${PATH:-/usr/bin:/bin}:/usr/local/bin:/opt/homebrew/bin:$HOME/.local/bin" # cron's knows two folders

say() { printf 'backup.sh: %s\n' "$*" >&2 || true; }

# What need not be acted on.
say_notice() { asked_for --quiet || asked_for -q || say "$@"; }

# Ends with an exit code, a sentence, and what to type next. With --json they are the one document on stdout too.
die() {
  local code=$1 message=$2 following=${3:-}
  if [ "$code" = 130 ]; then say "$message"; else printf 'Error: %s\n' "$message" >&2 || true; fi
  if [ -n "$following" ]; then printf '  Next: %s\n' "$following" >&2 || true; fi
  if asked_for --json; then
    printf '{"schema_version": 1, "error": {"code": %d, "message": %s, "next": %s}}\n' \
      "$code" "$(in_json "$message")" "$(in_json "$following")" >&"${results:-1}"
  fi
  exit "$code"
}

in_json() {
  local text=$1
  text=${text//\\/\\\\}
  text=${text//\"/\\\"}
  text=${text//[[:cntrl:]]/ }
  if [ -n "$text" ]; then printf '"%s"' "$text"; else printf null; fi
}

# --- what was asked for -----------------------------------------------------------------------------------------------

# The folder of the script itself, where it was started through a symlink; BSD's readlink has no -f.
folder_of() {
  local file=$1 target
  while [ -L "$file" ]; do
    target=$(readlink "$file")
    case $target in /*) file=$target ;; *) file=$(dirname "$file")/$target ;; esac
  done
  cd "$(dirname "$file")" && pwd
}

absolute() {
  local folder
  folder=$(cd "$(dirname "$1")" 2>/dev/null && pwd) || folder=$(dirname "$1")
  printf '%s/%s\n' "${folder%/}" "$(basename "$1")"
}

# Splits the arguments: `command`, `words` to hand over, `path` (a FILE with a folder in it), `stop` (ours alone),
# `key` (a file with keys of age: where in `words` its option is), `to` (a new folder: where in `words` it is).
read_arguments() {
  local word before=""
  command="" path="" stop="" key="" to="" words=()
  for word in "$@"; do
    case $command:$before:$word in
      restore:*:--to=* | extract:*:--to=*) words+=(--to) before=--to word=${word#--to=} ;;
    esac
    # An empty word is no path: the tool refuses it.
    if [ -z "$word" ]; then
      words+=("") before=""
      continue
    fi
    case $command:$before:$word in
      extract:--to:-) ;;
      clone:--from:* | clone:--mask:* | clone:*:-*) ;;
      restore:--to:* | extract:--to:* | clone:*:*)
        words+=("$(absolute "$word")") to=$((${#words[@]} - 1)) before=""
        continue
        ;;
    esac
    case $command:$before in
      import:--name) words+=("$word") before="" && continue ;;
      import:--identity | import:-i | export:--recipients-file)
        words+=("$(absolute "$word")") key=$((${#words[@]} - 2)) before=""
        continue
        ;;
    esac
    case $command:$word in report:--output=*/* | report:-o*/*) words+=(--output) word=${word#--output=} word=${word#-o} ;; esac
    before=$word
    case $command:$word in
      :-*) ;;
      :*) command=$word ;;
      restore:--stop | restore-dump:--stop | undo:--stop | migrate:--stop) stop=yes && continue ;;
      *:-*) ;;
      dump:*/* | restore-dump:*/* | salvage:*/* | export:*/* | import:*/* | recovery-kit:*/* | report:*/*)
        path=$(absolute "$word")
        word=$path
        if [ "${path%/*}" = "$root/backups" ]; then word=${path##*/} path=""; fi
        ;;
    esac
    words+=("$word")
  done
}

asked_for() { case " ${words[*]-} " in *" $1 "*) ;; *) return 1 ;; esac }

# Whether pages are served: the port of a container must be published on this machine.
is_served() { [ "$command" = web ] && ! asked_for --set-password; }

updates() { [ "$command" = update ] && ! asked_for --help; }

# The app's service cannot write backup.toml: a container of its own can.
edits_settings() { [ "$command" = config ] && { asked_for set || asked_for unset || asked_for init; }; }

# Only these read stdin; any other command would eat the input of a `while read` loop around it.
needs_input() {
  case $command in
    restore-dump | import) asked_for - ;;
    web) asked_for --set-password ;;
    *) return 1 ;;
  esac
}

# Commands that must work at once in a fresh clone: no image is built for them.
needs_no_service() { case $command in "" | doctor | config) ;; *) asked_for --help ;; esac }

# The value of a plain line `name = "value"` in backup.toml, before its first table; nothing where there is none.
setting() {
  local line plain="^[[:space:]]*$1[[:space:]]*=[[:space:]]*[\"']([A-Za-z0-9_.-]*)[\"'][[:space:]]*(#.*)?\$"
  local table='^[[:space:]]*\['
  if ! [ -f "$app/backup.toml" ] || ! [ -r "$app/backup.toml" ]; then return; fi
  while IFS= read -r line || [ -n "$line" ]; do
    line=${line%$'\r'}
    if [[ $line =~ $table ]]; then return; fi
    if [[ $line =~ $plain ]]; then printf '%s\n' "${BASH_REMATCH[1]}"; fi
  done <"$app/backup.toml"
}

# --- where to run it --------------------------------------------------------------------------------------------------

has_compose_file() {
  [ -z "${BACKUP_COMPOSE_FILE:-}" ] || export COMPOSE_FILE=$BACKUP_COMPOSE_FILE
  [ -z "${COMPOSE_FILE:-}" ] || return 0
  local name
  for name in docker-compose.yml docker-compose.yaml compose.yml compose.yaml; do
    if [ -e "$name" ]; then return; fi
  done
  [ -f .env ] && grep -qs '^COMPOSE_FILE=' .env
}

# For a question in a subshell: in a process group of its own. A client catches Ctrl-C and fails, and bash would take that
# for its answer, and go on.
ask() {
  set -m
  "$@" </dev/null &
  wait "$!"
}

# Whether the engine answers within `engine_patience` seconds; if not, `why` and `broken` say so.
engine_patience=30 broken=""
engine_answers() {
  local answer code=0
  if IFS= read -r -d '' -t "$engine_patience" answer < <(
    exec 2>/dev/null # who reads our stderr need not wait for an engine that hangs
    ask "$engine" ps --quiet 2>&1 >/dev/null || code=$?
    printf '\n%s\0' "$code"
  ); then
    code=${answer##*$'\n'} answer=${answer%$'\n'*}
    if [ "$code" = 0 ]; then return; fi
    answer=${answer%$'\n'}
    answer=${answer##*$'\n'}
    why="$engine does not answer${answer:+ ($answer)}"
  else
    why="$engine does not answer within $engine_patience s"
  fi
  broken=$why
  return 1
}

# Sets `compose` and `engine` to the first pair that answers, else `why` there is none.
find_engine() {
  local candidate answer silent=""
  has_compose_file || { why="there is no compose file in $root" && return 1; }
  why="neither Docker nor Podman with Compose is installed"
  for candidate in ${BACKUP_COMPOSE:+"$BACKUP_COMPOSE"} "docker compose" docker-compose "podman compose" podman-compose; do
    read -r -a compose <<<"$candidate"
    engine=${candidate%%[ -]*}
    if ! command -v "$engine" >/dev/null || ! command -v "${compose[0]}" >/dev/null; then continue; fi
    case $silent in *" $engine "*) continue ;; esac
    if ! engine_answers; then
      silent+=" $engine "
    elif [ "${#compose[@]}" = 1 ]; then
      return
    elif answer=$(ask "${compose[@]}" version 2>&1); then
      # `podman compose` hands everything over to another program, which may be this one.
      case $answer in *podman-compose*) if command -v podman-compose >/dev/null; then compose=(podman-compose); fi ;; esac
      return
    fi
  done
  return 1
}

is_podman_compose() { [ "${compose[0]}" = podman-compose ]; }

# podman-compose prints lines of its own among the results, loses the exit code, and takes no variable without its value:
# it is asked for podman's commands, which are run here, with `flags` added.
tell_compose() { if is_podman_compose; then run_podman_commands "$@"; else "${compose[@]}" "$@"; fi; }

# The commands that podman-compose would run: of each the number of its words, and the words. It is given this script in
# the place of podman, which writes them down.
podman_commands() {
  local list said
  [ -x "$root/backup.sh" ] || die 1 "podman-compose must be able to start backup.sh." "chmod +x $root/backup.sh"
  list=$(mktemp) || die 1 "Cannot write a temporary file." "df -h ${TMPDIR:-/tmp}"
  if said=$(BACKUP_PODMAN_COMMANDS=$list "${compose[@]}" --podman-path "$root/backup.sh" "$@" 2>&1 </dev/null); then
    said=""
  fi
  cat "$list"
  rm -f "$list"
  if [ -n "$said" ]; then printf '%s\n' "$said" >&2; fi
}

run_podman_commands() {
  local commands=() argv=() verb="" word count=0 code=0
  while IFS= read -r -d '' word; do commands+=("$word"); done < <(podman_commands "$@")
  [ "${#commands[@]}" -gt 0 ] || die 2 "podman-compose cannot do this: $* (see above)." "podman-compose ps"
  for word in ${commands[@]+"${commands[@]}"}; do
    if [ "$count" = 0 ]; then count=$word verb="" argv=() && continue; fi
    count=$((count - 1))
    # Version 1.0 takes any text after `read_only:` for a yes, and "false" too.
    case ${BACKUP_HOST_SETTINGS_READ_ONLY:-}:$word in false:*/backup.toml:ro) word=${word%ro}rw ;; esac
    if [ -z "$verb" ]; then verb=$word; else argv+=("$word"); fi
    if [ "$count" = 0 ]; then podman "$verb" ${flags[@]+"${flags[@]}"} ${argv[@]+"${argv[@]}"} || code=$?; fi
  done
  return "$code"
}

# The containers of this project that belong to no command: the service, and what the engine says of each.
containers() {
  local ids owner one_off rest flags=() all=--all
  local format='{{index .Config.Labels "com.docker.compose.service"}}|{{index .Config.Labels "com.docker.compose.oneoff"}}'
  if is_podman_compose; then all=""; fi # lists all of them, and knows no such option
  ids=$(ask tell_compose ps $all --quiet) || die 2 "Compose cannot read ${COMPOSE_FILE:-its file in $root} (see above)." \
    "${compose[*]} config"
  # shellcheck disable=SC2086 # one word per container
  while IFS='|' read -r owner one_off rest; do
    if [ "$one_off" != True ]; then printf '%s|%s\n' "$owner" "$rest"; fi
  done < <([ -z "$ids" ] || ask "$engine" inspect --format "$format|$1" $ids 2>/dev/null)
}

# As the engine writes times; the second form is BSD's.
a_minute_ago() {
  local then=$(($(date +%s) - 60)) form=+%Y-%m-%dT%H:%M:%S
  date -u -d "@$then" "$form" 2>/dev/null || date -u -r "$then" "$form" || true
}

# Sets `container` and `state` of a service: running, restarting, exited … or nothing where it has no container.
find_state() {
  local found owner status restarts since id minute_ago
  minute_ago=$(a_minute_ago)
  state=""
  local started='{{.State.StartedAt}}'
  if [ "$engine" = podman ]; then started='{{.State.StartedAt.UTC.Format "2006-01-02T15:04:05"}}'; fi
  found=$(containers "{{.State.Status}}|{{.RestartCount}}|$started|{{.Id}}") || exit
  while IFS='|' read -r owner status restarts since id; do
    if [ "$owner" != "$1" ] || [ "$state" = running ]; then continue; fi
    state=$status container=$id
    # Between two crashes a looping container is "running" too: what is started in it dies with it.
    if [ "$status" = running ] && [ "$restarts" -gt 0 ] && [[ $since > $minute_ago ]]; then state=restarting; fi
  done <<<"$found"
}

check_service() {
  local services
  services=$(ask "${compose[@]}" config --services 2>/dev/null) || return 0
  case $'\n'$services$'\n' in *$'\n'"$service"$'\n'*) return ;; esac
  die 2 "The compose file has no service '$service', but: ${services//$'\n'/, }." \
    "Set BACKUP_SERVICE, or type: BACKUP_RUNNER=local ./backup.sh config set service NAME"
}

# Sets `runner`: exec, run or local.
choose_runner() {
  local insist=""
  if [ "$command" = demo ]; then runner=local && return; fi # it lies in examples/, and in no image
  case ${wanted:=auto} in
    auto) ;;
    docker) insist=yes ;;
    local) runner=local && return ;;
    *)
      die 2 "BACKUP_RUNNER is '$wanted'; it can be auto, docker or local." \
        "Set one of them: BACKUP_RUNNER, or runner in backup.toml."
      ;;
  esac
  if ! find_engine; then
    [ -z "$insist" ] || die 1 "BACKUP_RUNNER=docker, but $why." "Start the engine; or BACKUP_RUNNER=local, if the data is here."
    run_locally_because "$why"
    return
  fi
  find_state "$service"
  runner=run
  case $state in
    running) if [ -z "$stop$to" ] && ! is_served && ! edits_settings; then runner="exec"; fi ;;
    "")
      check_service
      if [ -z "$insist" ] && needs_no_service; then runner=local && return; fi
      say_notice "Service '$service' has no container yet: starting one for this command; its image is built first" \
        "where it is missing. (Without a container: BACKUP_RUNNER=local.)"
      ;;
  esac
}

# Without the engine a named volume is out of reach; a folder of the same name is something else.
run_locally_because() {
  runner=local
  has_compose_file || return 0
  if ! needs_no_service && grep -Eqs '^ *- *["'\'']?[A-Za-z0-9][A-Za-z0-9_.-]*:/[^/]' docker-compose*.y*ml compose*.y*ml; then
    die 1 "The data is in a named volume, and $1." "Start the engine; or BACKUP_RUNNER=local, if the data is here."
  fi
  say_notice "Running without a container: $1. (BACKUP_RUNNER=local hides this note.)"
}

# --- what the tool cannot know inside a container ---------------------------------------------------------------------

quiet_git() {
  local at=()
  if [ -n "${repository:-}" ]; then at=(--git-dir "${repository%/}/.git" --work-tree "$repository"); fi
  GIT_OPTIONAL_LOCKS=0 GIT_TERMINAL_PROMPT=0 git -c safe.directory='*' -c core.fsmonitor=false ${at[@]+"${at[@]}"} "$@" \
    2>/dev/null </dev/null
}

owner_of() {
  local owner
  read -r _ _ owner _ < <(ls -ldn "$1") && printf '%s\n' "$owner"
}

# Sets `repository`: where the work tree around this folder begins; and `missing`: why there is none to ask. The
# settings of a repository name commands that git runs, and its check of who owns them is off, so that root sees the
# facts of another user's project. One counts only if its .git is root's, of this user, or of the owner of this folder:
# anybody can put one into a folder like /tmp.
find_repository() {
  local owner
  missing="not a git repository"
  repository=$(quiet_git rev-parse --show-toplevel) || return
  owner=$(owner_of "${repository%/}/.git" 2>/dev/null) || return
  missing="${repository%/}/.git belongs to user $owner, so git is not asked"
  [ "$owner" = 0 ] || [ "$owner" = "$EUID" ] || [ "$owner" = "$(owner_of "$root")" ]
}

collect_git_facts() {
  local facts repository="" missing=""
  if ! command -v git >/dev/null; then
    export BACKUP_GIT_MISSING="no git here"
    return
  fi
  # shellcheck disable=SC2046 # in a git hook these point at another repository, or at half an index
  unset $(quiet_git rev-parse --local-env-vars)
  if ! find_repository; then
    export BACKUP_GIT_MISSING=$missing
    return
  fi
  if ! facts=$(quiet_git log -1 --no-show-signature --format='%H%n%h%n%s'); then
    export BACKUP_GIT_MISSING="no commit yet"
    return
  fi
  { read -r BACKUP_GIT_COMMIT && read -r BACKUP_GIT_SHORT && IFS= read -r BACKUP_GIT_SUBJECT; } <<<"$facts"
  BACKUP_GIT_BRANCH=$(quiet_git symbolic-ref --quiet --short HEAD || true)
  BACKUP_GIT_TAG=$(quiet_git describe --tags --exact-match HEAD || true)
  BACKUP_GIT_DIRTY=false
  if [ -n "$(quiet_git status --porcelain --untracked-files=no)" ]; then BACKUP_GIT_DIRTY=true; fi
  BACKUP_HOST_ORIGIN=$(quiet_git remote get-url origin || true)
  export BACKUP_HOST_ORIGIN BACKUP_GIT_COMMIT BACKUP_GIT_SHORT BACKUP_GIT_SUBJECT BACKUP_GIT_BRANCH BACKUP_GIT_TAG BACKUP_GIT_DIRTY
}

# Sets `seen`: settings of the data that a compose file gives a value, which holds in its containers only.
find_compose_settings() {
  local pattern="^[[:space:]-]*[\"']?BACKUP_(DATABASE|UPLOADS|DIR|ALEMBIC_INI)[\"']?[:=] *[^[:space:]]" files file
  IFS=: read -r -a files <<<"${COMPOSE_FILE:-}"
  for file in ${files[@]+"${files[@]}"} docker-compose*.y*ml compose*.y*ml; do
    if [ -f "$file" ]; then seen+=" $(grep -Eo "$pattern" "$file" | grep -o 'BACKUP_[A-Z_]*' | tr '\n' ' ' || true)"; fi
  done
}

has_service() { case $'\n'$(ask "${compose[@]}" config --services 2>/dev/null)$'\n' in *$'\n'"$1"$'\n'*) ;; *) return 1 ;; esac }

export_facts() {
  local seen=""
  if [ "$command" = doctor ] && [ "$runner" != local ] && has_service scheduler; then export BACKUP_HOST_SCHEDULER=scheduler; fi
  if [ "$command" = doctor ] && [ "$runner" = local ] && [ -n "$broken" ]; then export BACKUP_HOST_ENGINE_FAILS=$broken; fi
  case $command in doctor | config) find_compose_settings && export BACKUP_HOST_COMPOSE_SETS=$seen ;; esac
  # `config` shows where the person has set the service: it must not find the value here.
  if [ "$command" != config ]; then export BACKUP_SERVICE=$service BACKUP_APP_SERVICE=$app_service; fi
  export BACKUP_HOST_COMMAND=./backup.sh BACKUP_RUNNER_IN_USE=$runner BACKUP_HOST_FOLDER=$root
  export BACKUP_HOST_NAME=${BACKUP_HOST_NAME:-$HOSTNAME}
  export BACKUP_HOST_USER=${SUDO_USER:-${USER:-${LOGNAME:-}}}
  if [ "$runner" != local ]; then export BACKUP_COMPOSE="${compose[*]}"; fi
  if edits_settings; then export BACKUP_HOST_SETTINGS_READ_ONLY=false; fi
  case $command in backup | auto-backup | update | migrate | run | schedule | ui | web | recovery-kit) collect_git_facts ;; esac
}

# --- in a container ---------------------------------------------------------------------------------------------------

one_off=backup-$$-$RANDOM
mark=backup_run=$one_off
came="" deaf="" ending="exit 130"

in_container() {
  local flags=() options=() name code=0 ending="exit 130"
  if ! [ -t 0 ] || ! [ -t 1 ]; then options=(-T); fi
  if is_served; then flags+=(-p "$published"); fi
  if [ -n "$to" ]; then flags+=(-v "$BACKUP_HOST_MOUNT:$mounted"); fi
  if [ "$command" = ui ]; then flags+=(-e TERM -e COLORTERM -e TEXTUAL_THEME); fi
  for name in "${!BACKUP_@}" "${!NO_COLOR@}"; do
    case $name in BACKUP_RUNNER | BACKUP_COMPOSE_FILE | BACKUP_APP_DIR) ;; *) flags+=(-e "$name") ;; esac
  done
  if is_podman_compose; then
    if [ "$runner" = run ]; then flags+=(--label com.docker.compose.oneoff=True); fi
  else
    options+=("${flags[@]}")
  fi
  case $runner in
    exec) attend signal_command enter python -X "$mark" backup_restore.py ${words[@]+"${words[@]}"} || code=$? ;;
    # Not through the entrypoint: what makes a service crash may be there.
    run)
      attend signal_command tell_compose run --rm --no-deps --name "$one_off" ${options[@]+"${options[@]}"} \
        --entrypoint python "$service" -X "$mark" backup_restore.py ${words[@]+"${words[@]}"} || code=$?
      ;;
  esac
  if [ "$code" = 137 ]; then
    say "The command was killed: its container was stopped or removed, or the machine has too little memory. Type it again."
  fi
  return "$code"
}

# Runs a program in the service's container, with `options` and `flags`. podman-compose would give it the word None for
# each variable without a value.
enter() {
  if ! is_podman_compose; then
    "${compose[@]}" exec ${options[@]+"${options[@]}"} "$service" "$@"
  else
    if [ ${#options[@]} = 0 ]; then flags+=(--tty); fi
    "$engine" exec --interactive ${flags[@]+"${flags[@]}"} "$container" "$@"
  fi
}

# What a signal ends is this script and its client, never the command: that lives in a container. So a client is waited
# for to its end, and a signal is handed over to `$1`. Without a terminal, the client is in a process group of its own:
# it goes on, and shows what the command says. With one, it must be in ours to read from it. Sets `came`, the signal.
attend() {
  local hear=$1 client="" code=0 terminal=""
  shift
  came=""
  if [ -t 0 ] && [ -t 1 ]; then
    terminal=yes
  elif [ -t 0 ]; then
    if needs_input; then exec < <(cat); else exec </dev/null; fi
  fi
  if [ -z "$deaf" ]; then
    trap 'came=INT' INT
    trap 'came=TERM' TERM HUP
  fi
  [ -n "$terminal" ] || set -m
  (trap - INT TERM HUP && "$@") <&0 &
  client=$!
  set +m
  if [ -z "$deaf" ]; then
    trap 'hand_over INT' INT
    trap 'hand_over TERM' TERM HUP
  fi
  if [ -n "$came" ]; then hand_over "$came"; fi
  while kill -0 "$client" 2>/dev/null; do wait "$client" || true; done
  wait "$client" || code=$? # a signal ends an earlier `wait` with a code of its own
  if [ -n "$came" ]; then
    while "$hear" ""; do sleep 0.5 || true; done
    if [ -n "$terminal" ] || [ "$code" -gt 16 ] || updates; then code=130; fi
  fi
  # shellcheck disable=SC2064 # what it is now
  if [ -z "$deaf" ]; then trap "$ending" INT TERM HUP; fi
  return "$code"
}

# For a client that is only waited for.
finish() { [ -n "$1" ]; }

# For one that does the work itself, in a group of its own.
end_client() { [ -n "$1" ] && kill -s "$1" -- "-$client" 2>/dev/null; }

# Until the signal has arrived. An engine may yet be starting what a client that is gone has asked for.
hand_over() {
  local looks=0
  came=$1
  until "$hear" "$1"; do
    if ! kill -0 "$client" 2>/dev/null && [ $((looks += 1)) = 5 ]; then break; fi
    sleep 0.1 || true
  done
}

# Sends the signal to the command, or none if it is empty; fails where the command does not run, or cannot hear yet.
signal_command() {
  local options=(-T) flags=() way=("$engine" exec "$one_off")
  if [ "$runner" = exec ]; then way=(enter); fi
  "${way[@]}" python -c "$signal_marked" "$mark" "$1" || {
    if [ "$runner" = run ] && [ -z "$1" ]; then "$engine" rm "$one_off"; fi # left where its client could not remove it
    return 1
  }
} >/dev/null 2>&1 </dev/null

# The command is known by its words, which show in every container. It hears once it has handlers of its own, and may
# belong to the owner of the data.
signal_marked='import os, re, signal, sys, time

def read(name):
    try:
        with open(f"/proc/{name}", "rb") as file:
            return file.read()
    except OSError:
        return b""

def hears(process):
    caught = re.search(rb"SigCgt:\s*(\w+)", read(f"{process}/status"))
    return caught and int(caught[1], 16) >> signal.SIGTERM - 1 & 1

def ours():
    words = [b"-X", sys.argv[1].encode()]
    return [one for one in os.listdir("/proc") if one.isdigit() and read(f"{one}/cmdline").split(b"\0")[1:3] == words]

while sys.argv[2] and ours() and not any(map(hears, ours())):
    time.sleep(0.02)
for process in ours():
    if sys.argv[2] and hears(process):
        os.seteuid(os.stat(f"/proc/{process}").st_uid)
        os.kill(int(process), signal.Signals["SIG" + sys.argv[2]])
sys.exit(not ours())'

# With the time to finish its step. An engine may yet be making it.
end_container() {
  local looks=0
  while [ "$looks" -lt 5 ]; do
    if "$engine" stop --time 60 "$1"; then "$engine" rm --force "$1" || true; fi
    looks=$((looks + 1))
    sleep 0.2
  done
} >/dev/null 2>&1

# A container does not see a path of this machine: the file's content travels through stdin and stdout.
send_path() {
  local index
  case $command in
    restore-dump | import)
      [ -e "$path" ] || return 0 # perhaps it is a path in the container; if not, the tool says so
      exec <"$path"
      ;;
    export) export BACKUP_HOST_FILE=${path##*/} ;; # its suffix says how it is written
  esac
  for index in "${!words[@]}"; do
    if [ "${words[index]}" = "$path" ]; then words[index]=-; fi
  done
}

# A folder cannot be sent so: its parent is mounted, in a container of its own.
mounted=/mnt/backup-target
send_target() {
  local target=${words[to]}
  export BACKUP_HOST_MOUNT=${target%/*}
  [ -d "${BACKUP_HOST_MOUNT:=/}" ] ||
    die 2 "There is no folder $BACKUP_HOST_MOUNT." "mkdir -p $(printf %q "$BACKUP_HOST_MOUNT")"
  case $BACKUP_HOST_MOUNT in
    *:*) die 2 "A container cannot have $BACKUP_HOST_MOUNT, because of the colon in it." "Name another folder." ;;
  esac
  words[to]=$mounted/${target##*/}
}

# The content of a file with keys is sent in the environment.
send_key() {
  local name=BACKUP_EXPORT_RECIPIENTS file=${words[key + 1]} content
  if [ "$command" = import ]; then name=BACKUP_EXPORT_IDENTITY; fi
  [ -r "$file" ] || return 0 # the tool says so
  content=$(cat "$file")
  [[ $content == *[![:space:]]* ]] || die 2 "$file holds no key of age." "Name the file with the key." # an empty variable is as none
  export "$name=$content"
  words=("${words[@]:0:key}" "${words[@]:key+2}")
}

# A report replaces an earlier report, and no other file.
is_report() {
  local start=""
  [ "$command" = report ] && [ -f "$1" ] || return 1
  IFS= read -r -d '' -n 1000 start <"$1" || true
  [[ $start == *'content="backupkit report'* ]]
}

# For this machine alone, unless --host says otherwise; in the container it is served to whoever the engine lets through.
publish() {
  local word host=127.0.0.1 port=8765 before="" rest=()
  for word in "${words[@]}"; do
    case $before:$word in
      --host:*) host=$word ;;
      --port:*) port=$word ;;
      *:--host | *:--port) ;;
      *:--host=*) host=${word#*=} ;;
      *:--port=*) port=${word#*=} ;;
      *) rest+=("$word") ;;
    esac
    before=$word
  done
  [ -n "$host" ] ||
    die 2 "There is no address to serve the pages at: --host is empty." "Leave --host out: they are for this machine alone then."
  [ "$port" != 0 ] || die 2 "A container's port is published by its number." "Name one: --port 8765"
  words=("${rest[@]}" --host 0.0.0.0 --port "$port")
  export BACKUP_HOST_ADDRESS=$host
  case $host in *:*) host=[$host] ;; esac
  published=$host:$port:$port
}

write_to_path() {
  local filter=(cat) code=0
  case $command:$path in
    dump:*.gz) filter=(gzip -c) ;;
    dump:*.zst) filter=(zstd -q -c) ;;
  esac
  command -v "${filter[0]}" >/dev/null || die 2 "There is no ${filter[0]} here." "Dump to a .gz, or to a bare name."
  if [ -e "$path" ] && ! is_report "$path"; then die 2 "$path exists already." "Choose another name."; fi
  part=$(mktemp "$path.XXXXXX") || die 2 "Cannot write beside $path." "ls -ld $(printf %q "${path%/*}/")"
  trap 'rm -f "$part"' EXIT # it runs when this function has ended, so `part` is not local
  # A web server may have to read a report: it keeps its mode, a new one gets that of the umask.
  if [ -e "$path" ]; then cp -p "$path" "$part"; elif [ "$command" = report ]; then chmod +rw "$part"; fi
  in_container | "${filter[@]}" >"$part" || code=$?
  case $code in 0 | 3) mv "$part" "$path" && printf '%s\n' "$path" ;; esac
  return "$code"
}

start_again() {
  local code=$?
  trap '' INT TERM HUP
  if tell_compose start "$app_service" >&2 </dev/null; then exit "$code"; fi
  say "Service '$app_service' could not be started again. Run: ${compose[*]} up -d $app_service"
  if [ "$code" = 0 ]; then exit 3; fi
  exit "$code"
}

# The service is started again whatever becomes of the command: bash runs a trap when the command has ended.
with_service_stopped() {
  if [ "$app_service" != "$service" ]; then find_state "$app_service"; fi
  case $state in
    running | restarting) ;;
    *)
      say_notice "Service '$app_service' is not running: it stays stopped."
      in_container
      return
      ;;
  esac
  trap start_again EXIT
  attend finish tell_compose stop "$app_service" >&2 </dev/null
  if [ -n "$came" ]; then exit 130; fi
  in_container
}

# --- update: a new image, and a way back ------------------------------------------------------------------------------

# Each step is written down before it begins, so that whoever comes next can go back. What is needed for that: the image
# that runs, by its id and by its name; the name in the compose file, and the image that it named; the services on it,
# once for each container; and the backup of the moment they stopped.
#   building    nothing that runs was touched, but the name may be the new image's
#   stopping    the services may be stopped; the data is as it was
#   migrating   the data may be another
#   starting    the services may run on the new image
#   returned    the data is back
ledger=.backup-update/state
slowest_start=900 # seconds, for a container that is neither healthy nor unhealthy

note_step() {
  printf '%s\n' "$1" "$old" "$was_named" "$tag" "$services" "$point" "${new:-}" "$named" >"$ledger.new" || return
  mv "$ledger.new" "$ledger" && step=$1 && sync
}

begin_step() { note_step "$1" || give_up 15 "The next step could not be written down in $root/${ledger%/*} (see above)."; }

read_ledger() {
  named="" # a ledger of an earlier version has it not
  {
    read -r step && read -r old && read -r was_named && read -r tag && read -r services && read -r point && read -r new &&
      read -r named
  } <"$ledger" || true
  name_old_image
}

start_of() { LC_ALL=C TZ=UTC ps -p "$1" -o lstart= 2>/dev/null || true; }

# Sets `other` to the pid of the update that runs now. A pid may be used again: the time of its start tells.
find_updater() {
  local began=""
  other=""
  { read -r other && read -r began; } <"${ledger%/*}/holder" || true
  if [ -n "$other" ] && kill -0 "$other" 2>/dev/null && [ "$(start_of "$other")" = "$began" ]; then return; fi
  other=""
} 2>/dev/null

# No other update begins until this process ends.
claim_update() {
  local holder=${ledger%/*}/holder other
  mkdir -p "${ledger%/*}"
  echo '*' >"${ledger%/*}/.gitignore"
  if ! (set -C && printf '%s\n' "$$" "$(start_of $$)" >"$holder") 2>/dev/null; then
    find_updater
    [ -z "$other" ] || [ "$other" = "$$" ] || die 11 "Another update is at work (pid $other)." "Wait for its end."
    printf '%s\n' "$$" "$(start_of $$)" >"$holder" ||
      die 15 "Cannot write to $root/${ledger%/*}. Nothing was changed." "df -h $root"
  fi
  # shellcheck disable=SC2064 # the name as it is now
  trap "rm -f '$holder'" EXIT
}

# The lines `image: …` and `build:` of a service, as Compose reads its files.
in_compose_file() {
  local line part="" name=""
  while IFS= read -r line; do
    case $line in
      [!\ ]*) part=$line name="" ;;
      "  "[!\ ]*) name=${line//[\"\' :]/} ;;
      "    image: "* | "    build:"*) if [ "$part$name" = "services:$1" ]; then printf '%s\n' "${line#    }"; fi ;;
    esac
  done < <(ask "${compose[@]}" config 2>/dev/null)
}

# The image's name of a service in the compose file; nothing where it has none.
image_name() {
  local found
  found=$(in_compose_file "$1")
  case $found in *"image: "*) found=${found#*image: } && printf '%s\n' "${found%%$'\n'*}" ;; esac
}

# Sets `kept`, the name that the old image keeps once the update is through, and `held`, the one it has until then.
name_old_image() {
  local name
  case ${tag##*:} in */*) name=$tag ;; *) name=${tag%:*} ;; esac
  kept=$name:before-update held=$name:updating
}

# Sets `old`, `was_named`, `tag`, `named`, `services`, `kept` and `held`.
find_image() {
  local found owner status image name
  old="" services="" point=""
  found=$(containers '{{.State.Status}}|{{.Image}}|{{.Config.Image}}') || exit
  while IFS='|' read -r owner status image name; do
    if [ "$owner|$status" = "$app_service|running" ]; then old=$image was_named=$name; fi
  done <<<"$found"
  [ -n "$old" ] || die 1 "Service '$app_service' is not running, so there is nothing to come back to." \
    "${compose[*]} up -d $app_service"
  while IFS='|' read -r owner status image name; do
    if [ "$status|$image" = "running|$old" ]; then services="${services:+$services }$owner"; fi
  done <<<"$found"
  tag=$(image_name "$app_service")
  tag=${tag:-$was_named}
  case $tag in *@*) die 2 "The compose file pins $tag: no other image can have that name." "Pin a tag, not a digest." ;; esac
  named=$(image_id "$tag") || true
  name_old_image
  if [ "$service" != "$app_service" ] && [ "$(image_name "$service")" != "$tag" ]; then
    die 2 "Commands run in '$service', on another image than '$app_service': the new migrations cannot be run from there."
  fi
}

# The toolkit's command, in a container of its own on that image; of the same name each time: there is one update.
on_image() {
  local image=$1 runner=run one_off words
  one_off=$(update_container)
  shift
  words=("$@")
  name_image "$image" "$tag" && (in_container)
}

name_image() { attend finish "$engine" tag "$1" "$2"; }

image_id() { ask "$engine" image inspect --format '{{.Id}}' "$1" 2>/dev/null; }

update_container() {
  local sum rest
  read -r sum rest < <(cksum <<<"$root")
  printf 'backup-update-%s\n' "$sum"
}

# Gives the name back to the image that had it. If the compose file has another name by now, the new image keeps that.
give_name_back() {
  if [ "$tag" = "$was_named" ]; then
    name_image "${named:-$old}" "$tag"
  elif [ -n "${new:-}" ]; then
    name_image "$new" "$tag"
  fi
}

# Sets `new`, the image that was built, or pulled where the compose file does not say how to build one.
make_image() {
  local verb=pull
  case $(in_compose_file "$app_service") in *build:*) verb=build ;; esac
  attend end_client "${compose[@]}" "$verb" "$app_service" >&2 </dev/null || return
  new=$(image_id "$tag")
}

# Whether the services run, and the app is healthy where its image has a health check; if not, `why`.
comes_up() {
  local owner seen all began=$SECONDS
  while [ $((SECONDS - began)) -lt "$slowest_start" ]; do
    why="'$app_service' has no container" all=yes
    while IFS='|' read -r owner seen; do
      case " $services " in *" $owner "*) ;; *) continue ;; esac
      case $owner:$seen in
        "$app_service":*) why="'$app_service' is '$seen' (state, restarts, health)" ;;
        *:"running 0"*) ;;
        *) all="'$owner' is '$seen' (state, restarts, health)" ;;
      esac
    done < <(containers '{{.State.Status}} {{.RestartCount}} {{if .State.Health}}{{.State.Health.Status}}{{end}}')
    case $why in
      *"'running 0 healthy'"*) break ;;
      *"'running 0 starting'"*) ;;
      *"'running 0 '"*) if [ $((SECONDS - began)) -ge 10 ]; then break; fi ;;
      *) return 1 ;;
    esac
    sleep 1
  done
  if [ $((SECONDS - began)) -ge "$slowest_start" ]; then why="'$app_service' is not healthy after $slowest_start s" && return 1; fi
  [ "$all" = yes ] || { why=$all && return 1; }
}

# Sets `scales`, the options that keep the number of containers of each service.
count_containers() {
  local owner other count
  scales=()
  for owner in $(each_service); do
    count=0
    for other in $services; do if [ "$other" = "$owner" ]; then count=$((count + 1)); fi; done
    if [ "$count" -gt 1 ]; then scales+=(--scale "$owner=$count"); fi
  done
}

each_service() {
  local owner seen=""
  for owner in $services; do
    case " $seen " in *" $owner "*) ;; *) seen="${seen:+$seen }$owner" ;; esac
  done
  printf '%s\n' "$seen"
}

# The services run on that image.
start_on() {
  local scales
  count_containers
  why="they could not be started"
  # shellcheck disable=SC2046 # one word per service
  name_image "$1" "$tag" && attend finish "${compose[@]}" up -d --no-deps --no-build ${scales[@]+"${scales[@]}"} \
    $(each_service) >&2 </dev/null && comes_up
}

stop_services() {
  # shellcheck disable=SC2046 # one word per service
  attend finish "${compose[@]}" stop $(each_service) >&2 </dev/null
}

# From here on no signal is heard.
be_deaf() {
  deaf=yes
  trap '' INT TERM HUP PIPE
}

# Brings the old image and the old data back, whichever step was the last; else ends with the reason. The terminal may
# be gone by now, so the output goes into a file first.
go_back() {
  local code=0 log
  be_deaf
  log=$(mktemp) || log=/dev/null # not beside the ledger: the disk may be full
  say "Going back to what was before the update ($step)."
  bring_back >"$log" 2>&1 || code=$?
  cat "$log" >&2 || true
  rm -f "$log"
  if [ "$code" != 0 ]; then
    say "Not all of it is back. When the cause above is gone, type: ./backup.sh recover"
    die "$code" "${why:-The update could not be taken back.}"
  fi
  end_update
}

end_update() {
  "$engine" image rm "$held" >/dev/null 2>&1 || true
  rm -f "$ledger"
}

# The update is through: its backup is pinned, and the old image named, until the next one is.
keep_way_back() {
  local last=${ledger%/*}/last
  "$engine" tag "$old" "$kept"
  as_it_runs pin "$point" >/dev/null || say "$point could not be pinned: pin it, or retention may remove it."
  if [ -s "$last" ]; then as_it_runs unpin "$(head -n 1 "$last")" >/dev/null 2>&1 || true; fi
  printf '%s\n' "$point" >"$last"
}

bring_back() {
  local code=0
  end_container "$(update_container)" # of an update that was killed: it gets the time to put right what it has half done
  why="The engine could not give the old image its name back."
  case $step in
    building)
      give_name_back || return 1
      return 0 # a bare return says in a trap what was before it
      ;;
    migrating | starting)
      why="The data could not be put back, and '$(each_service)' stays stopped."
      stop_services || true
      on_image "$old" restore "$point" --yes || code=$?
      case $code in 0 | 3) note_step returned || true ;; *) return "$code" ;; esac
      ;;
  esac
  start_on "$old" || { why="The data is as before, but on the old image $why." && return 1; }
  why="The engine could not give the new image its name back."
  give_name_back
}

# An update that was killed: `recover` and `update` end it. It is done where the new image runs, and goes back elsewhere.
end_interrupted_update() {
  local other
  [ -s "$ledger" ] || return 0
  find_updater
  if [ -n "$other" ]; then say "An update is at work (pid $other)." && return; fi
  case $command in
    update | recover) ;;
    *) say "An update was interrupted. ./backup.sh recover ends it." && return ;;
  esac
  if asked_for --help; then return; fi
  if asked_for --dry-run; then die 1 "An update was interrupted." "./backup.sh recover"; fi
  [ "$runner" != local ] || die 1 "An update was interrupted, and its images are out of reach here." \
    "Start the engine, then type: ./backup.sh recover"
  claim_update
  read_ledger
  if [ "$step" = starting ] && runs_on_another && comes_up; then
    say "The interrupted update is done: '$(each_service)' runs on the new image, and $point has the data of before."
    keep_way_back
    end_update
    return
  fi
  go_back
  say "The interrupted update was taken back."
  deaf=""
  trap - PIPE
  # shellcheck disable=SC2064 # what it is now
  trap "$ending" INT TERM HUP
}

# Whether the app's container is on another image than the old one.
runs_on_another() {
  local owner image
  while IFS='|' read -r owner image; do
    if [ "$owner" = "$app_service" ] && [ "$image" != "$old" ]; then return; fi
  done < <(containers '{{.Image}}')
  return 1
}

give_up() {
  local code=$1
  shift
  if [ "$code" = 130 ] || [ -n "$came" ]; then code=130 && set -- "Interrupted."; fi
  go_back
  die "$code" "$* What ran before runs again."
}

# Sets `point`, the backup that was made: its name is in what the toolkit prints as JSON. 3 is one with warnings.
make_backup() {
  local printed code=0 name='"backup_name": *"([A-Za-z0-9._-]+)"'
  printed=$("$@" --note "before the update of $app_service from $old to $new" --json) || code=$?
  case $code in 0 | 3) ;; *) return "$code" ;; esac
  [[ $printed =~ $name ]] && point=${BASH_REMATCH[1]}
}

as_it_runs() {
  local words=("$@")
  (in_container)
}

# Its output is the result of a dry run.
rehearse_update() {
  local code=0 place=2
  if asked_for --dry-run && ! asked_for --json; then place=1; fi
  on_image "$new" migrate --dry-run --if-any ${options[@]+"${options[@]}"} >&"$place" || code=$?
  give_name_back
  return "$code"
}

# Sets `options`, those of the migrations.
read_update_options() {
  local word before=""
  options=()
  for word in "${words[@]}"; do
    case $before$word in
      update | --dry-run | --json | --quiet | -q) ;;
      --expect-loss | --expect-loss=* | --expect-loss[!=]*) options+=("$word") ;;
      *) die 2 "update has no '$word'." "./backup.sh update --help" ;;
    esac
    before=""
    if [ "$word" = --expect-loss ]; then before=$word; fi
  done
}

update() {
  local new="" step=building
  [ "$runner" != local ] || die 2 "There is no container to update." \
    "Start Docker; or, without it, update the code, then type: ./backup.sh migrate"
  ! is_podman_compose || die 2 "update needs Docker Compose: podman-compose cannot change the image of a service that runs."
  claim_update
  find_image
  ending="give_up 130"
  trap give_up\ 130 INT TERM HUP PIPE
  name_image "$old" "$held" || give_up 1 "The engine cannot name the image that runs (see above)."
  begin_step building
  say_notice "1/5 A new image for $(each_service)."
  make_image || give_up 1 "No new image: it could not be built or pulled (see above)."
  if [ "$new" = "$old" ]; then
    say_notice "The image is the one that runs: there is nothing to update. If the data are behind its code: ./backup.sh migrate"
  else
    say_notice "2/5 Its migrations, rehearsed on a copy of the data."
    rehearse_update || give_up $? "The new image cannot migrate the data (see above)."
  fi
  if [ "$new" != "$old" ] && ! asked_for --dry-run; then put_live; fi
  end_update
  if asked_for --json; then
    printf '{"schema_version": 1, "from": "%s", "to": "%s", "backup": "%s"}\n' "$old" "$new" "$point"
  elif [ -n "$point" ]; then
    printf 'Updated. %s has the data of before, and %s is the image of before.\n' "$point" "$kept"
  fi
}

# The first backup is made while the app runs, so that the second, for which the app is stopped, has little to copy.
put_live() {
  local code=0
  say_notice "3/5 A backup; then '$(each_service)' stops, and what was written meanwhile is backed up too."
  make_backup as_it_runs auto-backup || give_up $? "There is no backup, so there is no update (see above)."
  begin_step stopping
  stop_services || give_up 1 "'$(each_service)' could not be stopped (see above)."
  make_backup on_image "$old" auto-backup || give_up $? "There is no backup, so there is no update (see above)."
  begin_step migrating
  say_notice "4/5 The migrations, on the data."
  on_image "$new" migrate --if-any ${options[@]+"${options[@]}"} >&2 || code=$?
  case $code in 0 | 3) ;; *) give_up "$code" "The migration failed (see above)." ;; esac
  begin_step starting
  say_notice "5/5 '$(each_service)' starts on the new image."
  if ! start_on "$new"; then
    if [ -n "$came" ]; then give_up 130; fi
    code=$why
    "${compose[@]}" logs --tail 20 "$app_service" >&2 </dev/null || true
    give_up 1 "The new image does not come up: $code."
  fi
  be_deaf
  keep_way_back
}

# --- without a container ----------------------------------------------------------------------------------------------

# Whether the environment is complete, and its Python is still there.
is_usable() {
  local version
  version=$("$1/bin/python" -V 2>/dev/null) || return 1
  version=${version#Python }
  [ -d "$1/lib/python${version%.*}/site-packages" ]
}

find_python() {
  local candidate
  for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      printf '%s\n' "$candidate"
      return
    fi
  done
  return 1
}

install_with_uv() {
  uv venv --quiet --python '>=3.11' "$1" && uv pip install --quiet --python "$1/bin/python" --requirement "$2"
}

# Debian's python3 comes without pip: the package that holds it is fetched and unpacked, not installed.
fetch_pip() (
  mkdir "$1" && cd "$1" || exit
  apt-get download python3-pip-whl || { apt-get update && apt-get download python3-pip-whl; } || exit
  dpkg -x python3-pip-whl_*.deb . && mv usr/share/python-wheels/pip-*.whl pip.whl
) >/dev/null 2>&1

install_with_venv() {
  local python pip=("$1/bin/python" -m pip)
  python=$(find_python) || die 1 "Python 3.11 or later is needed, or Docker." "sudo apt install python3 python3-venv"
  if ! "$python" -m venv "$1" >/dev/null 2>&1; then
    pip=("$1/bin/python" "$1.pip/pip.whl/pip")
    if ! "$python" -m venv --clear --without-pip "$1" || ! fetch_pip "$1.pip"; then
      die 1 "Python cannot make a virtual environment here." "sudo apt install python3-venv"
    fi
  fi
  "${pip[@]}" install --quiet --disable-pip-version-check --no-input --requirement "$2"
}

# It is made in a folder of its own, and linked to when it is complete: neither a killed run nor two at once leave half
# of one. It is never moved, because its scripts name that folder.
make_environment() (
  folder=$root/.backup-venv
  say_notice "Making a Python environment in $folder (once)."
  { mkdir -p "$folder" && echo '*' >"$folder/.gitignore"; } 2>/dev/null ||
    die 1 "Cannot write to $folder." "Type this command once as the owner of $root."
  # Those of older requirements, and of killed runs; another run may be clearing them too.
  find "$folder" -mindepth 1 -maxdepth 1 -type d -mmin +60 -exec rm -rf {} + 2>/dev/null || true
  made=$(mktemp -d "$folder/made.XXXXXX") || die 1 "Cannot write to $folder." "Type this command once as the owner of $root."
  trap 'rm -rf "$made"' EXIT
  chmod 755 "$made"
  results=3 # stdout as it was: what installs prints there too
  if ! command -v uv >/dev/null || ! install_with_uv "$made/venv" "$1"; then
    rm -rf "$made/venv"
    install_with_venv "$made/venv" "$1" || die 1 "The packages in $1 could not be installed (see above)."
  fi 3>&1 >&2
  if is_usable "$environment"; then return; fi # another run was faster
  ln -sfn "${made##*/}/venv" "$environment"
  trap - EXIT
)

run_here() {
  local requirements environment
  requirements=$app/requirements.txt
  [ -e "$requirements" ] || die 1 "There is no backup_restore.py with a requirements.txt in $root or $root/backend." \
    "Copy them there, or set BACKUP_APP_DIR to their folder."
  environment=$root/.backup-venv/$(cksum <"$requirements" | tr ' ' -)
  is_usable "$environment" || make_environment "$requirements"
  # `config` shows where the person has set the folder: what is found here is none of that.
  [ -n "${BACKUP_APP_DIR:-}" ] || export BACKUP_HOST_FOUND_APP_DIR=yes
  export BACKUP_APP_DIR=$app
  exec "$environment/bin/python" "$app/backup_restore.py" ${words[@]+"${words[@]}"}
}

# ----------------------------------------------------------------------------------------------------------------------

root=$(folder_of "${BASH_SOURCE[0]}")
app=${BACKUP_APP_DIR:+$(absolute "$BACKUP_APP_DIR")}
if [ ! -e "${app:=$root/backend}/backup_restore.py" ]; then app=$root; fi
wanted=${BACKUP_RUNNER:-$(setting runner)}
service=${BACKUP_SERVICE:-$(setting service)}
service=${service:-backend}
app_service=${BACKUP_APP_SERVICE:-$(setting app_service)}
app_service=${app_service:-$service}
if [ "${1:-}" = help ]; then set -- "${@:2}" --help; fi
read_arguments "$@"
if [ -n "$stop" ] && [ -n "$to" ]; then die 2 "--stop does not go with --to: nothing live is touched." "Leave out --stop."; fi
if asked_for --dry-run || asked_for --help; then stop=""; fi
if ! [ -t 0 ] && ! needs_input; then exec </dev/null; fi

# shellcheck disable=SC2064 # what it is now
trap "$ending" INT TERM HUP
cd "$root"
choose_runner
export_facts
if updates; then read_update_options; fi
end_interrupted_update
if updates; then
  update
  exit
fi
if [ "$runner" = local ]; then
  if [ -n "$stop" ]; then say_notice "There is no container to stop. If the app must not run meanwhile, stop it yourself."; fi
  run_here
fi
if [ -n "$path" ]; then send_path; fi
if [ -n "$key" ]; then send_key; fi
if [ -n "$to" ]; then send_target; fi
if is_served; then publish; fi
if [ -n "$stop" ]; then
  with_service_stopped
else
  case $command:$path in
    dump:?* | export:?* | recovery-kit:?* | report:?*) write_to_path ;;
    *) in_container ;;
  esac
fi
