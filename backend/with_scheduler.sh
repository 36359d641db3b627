#!/bin/sh
# Runs the scheduler beside a command, in one container: sh with_scheduler.sh python app.py
# Both are told to end together, and both are waited for. Under an init (init: true), which is process 1.
set -u

python backup_restore.py schedule &
scheduler=$!
"$@" &
app=$!

# Told twice, the scheduler would give up the backup that it makes before its end.
told=no
end_scheduler() {
    [ "$told" = no ] || return
    told=yes
    kill -TERM "$scheduler" 2>/dev/null
}
trap 'kill -TERM "$app" 2>/dev/null; end_scheduler' TERM INT

wait "$app"
code=$?
# A signal ends the waiting, not the app.
while kill -0 "$app" 2>/dev/null; do
    wait "$app"
    code=$?
done
end_scheduler
while kill -0 "$scheduler" 2>/dev/null; do wait "$scheduler"; done
exit "$code"
