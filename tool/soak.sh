#!/bin/sh
# What `make soak` does: the long tests, then storms, whose figures go into bench/RESULTS.md. SEEDS: of each kind of both.
# 100 seeds of kills and outages of minutes take over an hour; 50 storms of half a minute, with rigs and draining, an
# hour and a half.
set -u
cd "$(dirname "$0")/.."
worst=0
SEAWALL_TEST_ROOT=1 SEAWALL_TEST_SEEDS="${SEEDS:-100}" SEAWALL_TEST_LIMIT_S=43200 \
  sh tool/test.sh -q -m soak "$@" || worst=1
# Named tests are meant alone.
if [ $# -eq 0 ]; then
    mkdir -p build
    .venv/bin/seawall lab storm --seed 1 --seeds "${STORMS:-50}" --minutes 0.5 --json >build/storms.json || worst=1
    .venv/bin/python tool/storms.py build/storms.json || worst=1
fi
exit "$worst"
