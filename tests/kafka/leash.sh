#!/bin/sh
# The leash of a test cluster: `leash.sh FOLDER`, with a pipe on stdin whose only write end the test process holds. In
# whatever way that process goes, by its end, a panic or SIGKILL, the system closes the pipe; then nothing of the cluster
# may be left: neither its brokers nor its folder.
#
# Each broker's folder holds its process id in `pid`; `container` names the container that all of them run in, if any.

# A ctrl-c is for the test process: a leash that died of it would leave its brokers running.
trap '' HUP INT TERM

cat >/dev/null

if [ -f "$1/container" ]; then
    docker rm --force --volumes "$(cat "$1/container")" >/dev/null 2>&1
else
    for pid in "$1"/*/pid; do
        [ -f "$pid" ] && kill -9 "$(cat "$pid")" 2>/dev/null
    done
fi

# A killed broker may still finish a write while its folder is emptied, so one attempt is not always enough.
attempts=100
until rm -rf "$1" 2>/dev/null || [ "$attempts" -eq 0 ]; do
    attempts=$((attempts - 1))
    sleep 0.1
done
