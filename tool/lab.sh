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

names() { # of the experiments to run, in the catalogue's order: NAME, and off where it has a run without, else on
    "$seawall" lab list --json | .venv/bin/python -c '
import json, os, shutil, sys
wanted = sys.argv[1:]
listed = json.load(sys.stdin)["experiments"]
if unknown := sorted(set(wanted) - {each["name"] for each in listed}):
    sys.exit("lab: no such experiment: " + ", ".join(unknown))
zones = os.geteuid() == 0 and shutil.which("ip", path=os.environ["PATH"] + ":/usr/sbin:/sbin")
for each in listed:
    if each["name"] not in wanted and wanted:
        continue
    if "zones" in each.get("needs", ()) and not zones:
        print("lab:", each["name"], "is left out: zones need root and iproute2", file=sys.stderr)
    else:
        print(each["name"], each["runs"][-1])' "$@"
}

"$seawall" lab parts prepare || exit 1
wanted=$(names "$@") && [ -n "$wanted" ] || {
    echo "lab: nothing was run; $seawall lab list names the experiments" >&2
    exit 3
}
# Each by itself: one that is aborted doesn't keep the others from being run. In order: some come after others.
while read -r name last; do
    case $last in
        off) run "$name, with and without the protections" "$seawall" lab run "$name" --twice --yes ;;
        *) run "$name" "$seawall" lab run "$name" --yes ;;
    esac </dev/null
done <<EOF
$wanted
EOF
if [ $# -eq 0 ]; then run "a storm" "$seawall" lab storm --seed 7 --minutes 2; fi
run "the report" "$seawall" lab report
exit "$worst"
