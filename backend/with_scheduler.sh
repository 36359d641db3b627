#!/bin/sh
# Runs the scheduler beside a command, in one container: sh with_scheduler.sh python app.py
# Both are told to end together, and both are waited for. Under an init (init: true), which is process 1.
set -u

python backup_restore.py schedule &
scheduler=$!
"$@" &
app=$!

end() { kill -TERM "$app" "$scheduler" 2>/dev/null; }
trap end TERM INT

wait "$app"
code=$?
# A signal ends the waiting, not the app.
while kill -0 "$app" 2>/dev/null; do
    wait "$app"
    code=$?
done
end
while kill -0 "$scheduler" 2>/dev/null; do wait "$scheduler"; done
exit "$code"
