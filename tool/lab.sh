#!/bin/sh
# What `make lab` does: every experiment of the catalogue, with the protections and, where it knows weak parts, without
# them; a storm; the report. Ends with 0 only when all came out as expected. ARGS: names of experiments, instead of all.
set -u
cd "$(dirname "$0")/.."
seawall=.venv/bin/seawall
worst=0

run() { # what it is, then the command; goes on after a failure, so that the report is whole
    echo "── lab: $1"
    shift
    "$@"
    code=$?
    if [ "$code" -ne 0 ]; then
        echo "── lab: ended with $code"
        worst=1
    fi
}

names() { # on | off: of the experiments to run, those that have such a run as their last
    "$seawall" lab list --json | .venv/bin/python -c '
import json, sys
last, wanted = sys.argv[1], sys.argv[2:]
for each in json.load(sys.stdin)["experiments"]:
    if each["runs"][-1] == last and (each["name"] in wanted or not wanted):
        print(each["name"])' "$@"
}

"$seawall" lab parts prepare || exit 1
twice=$(names off "$@") || exit 1
once=$(names on "$@") || exit 1
if [ -z "$twice$once" ]; then
    echo "lab: no such experiment; $seawall lab list names them" >&2
    exit 3
fi
# Each by itself: one that is aborted doesn't keep the others from being run.
for name in $twice; do run "$name, with and without the protections" "$seawall" lab run "$name" --twice --yes; done
for name in $once; do run "$name" "$seawall" lab run "$name" --yes; done
if [ $# -eq 0 ]; then run "a storm" "$seawall" lab storm --seed 7 --minutes 2; fi
run "the report" "$seawall" lab report
exit "$worst"
