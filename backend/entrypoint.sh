#!/bin/sh
# Starts the app: never as the machine's root, never on data a restore has left half done, with a database that has its tables.
set -eu
cd /app

say() { printf 'entrypoint: %s\n' "$*" >&2; }

# Without root's rights on the host, root in here is the person who started the engine: what root makes is hers.
is_a_person() {
    read -r inside outside count </proc/self/uid_map 2>/dev/null || return
    [ "$inside" = 0 ] && [ "$outside" != 0 ] && [ "$count" = 1 ] && [ "$(stat -c %u data)" = 0 ]
}

# The number that a user (uid_map) or a group (gid_map) has on the host: another one where the engine maps them.
on_the_host() {
    while read -r inside outside count; do
        if [ "$1" -ge "$inside" ] && [ "$1" -lt $((inside + count)) ]; then
            echo $((outside + $1 - inside))
            return
        fi
    done <"/proc/self/$2"
}

# Whether a folder's owner has no number in here; the kernel then shows one that is nobody's.
is_unmapped() {
    [ "$(on_the_host 0 uid_map)" != 0 ] && [ "$(stat -c %u "$1")" = "$(cat /proc/sys/kernel/overflowuid)" ]
}

# The user who owns the data; root's folders (Docker makes missing ones as root) are given to the image's own user.
become_the_apps_user() {
    user=$(stat -c %u data) group=$(stat -c %g data)
    if [ "$user" = 0 ] || is_unmapped data; then user=$(id -u app); fi
    if [ "$group" = 0 ] || is_unmapped data; then group=$(id -g app); fi
    for folder in data uploads backups; do
        if [ "$(stat -c %u "$folder")" = 0 ]; then give "$folder"; fi
    done
    exec setpriv --reuid="$user" --regid="$group" --clear-groups sh "$0" "$@"
}

# From within each folder, since a name can be made a link meanwhile; and where the kernel lets anybody link to root's
# files, none that has a second name. The folder itself comes last, so that an interrupted walk is walked again.
give() {
    only="( -links 1 -o -type d )"
    if [ "$(cat /proc/sys/fs/protected_hardlinks 2>/dev/null)" = 1 ]; then only=""; fi
    # shellcheck disable=SC2086 # words for find
    find "$1" -depth -xdev -user 0 $only -execdir chown -h "$user:$group" {} + 2>/dev/null ||
        say "Not everything in /app/$1 could be given to user $user: is it mounted read-only?"
}

may_write() {
    if [ -w "$1" ] && [ -x "$1" ]; then return; fi
    owner=$(on_the_host "$(id -u)" uid_map):$(on_the_host "$(id -g)" gid_map)
    say "User $(id -u) may not write to /app/$1. On the host, run: sudo chown -R $owner $2"
    return 1
}

recover() {
    code=0
    python backup_restore.py recover || code=$?
    case $code in
        0 | 3) ;;
        *)
            say "The app does not start: the data may be half restored, and could not be put right (see above)."
            exit "$code"
            ;;
    esac
}

# Made beside its place and moved there whole: an interrupted first start leaves no half database behind.
create_database() {
    rm -f "$1.new"
    alembic -x database="$1.new" upgrade head
    mv "$1.new" "$1"
}

if [ "$(id -u)" = 0 ] && ! is_a_person; then become_the_apps_user "$@"; fi

may_write data backend/data || exit
may_write uploads backend/uploads || exit
# The app itself needs no access to them: in a set-up that protects them from it, it has none.
[ -O backups ] || say "/app/backups belongs to another user: on the host, sudo chown -R $(id -u):$(id -g) backups"
recover

database=${BACKUP_DATABASE:-${DATABASE_URL:-data/pats.db}}
database=${database#sqlite:///}
if [ ! -e "$database" ]; then create_database "$database"; fi

python backup_restore.py doctor --at-start >&2 || true # says which SQLite this is, and where it should not be used

exec "$@"
