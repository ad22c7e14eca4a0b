#!/bin/sh
# Runs pytest with the closing count. Arguments go to pytest.
set -u
cd "$(dirname "$0")/.."
# Only what tests need: a proxy, a DSN or a setting of the caller's must not decide what they find.
for name in $(env | sed -n 's/^\(SEAWALL_[A-Z_]*\|PG[A-Z]*\)=.*/\1/p'); do
    case "$name" in SEAWALL_TEST_*) ;; *) unset "$name" ;; esac
done
PYTHONPATH=tool exec .venv/bin/python -m pytest -p closing -p outages "$@"
