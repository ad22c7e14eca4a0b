#!/bin/sh
# Writes the lock files anew from pyproject.toml: every version with its hashes, no addresses. Versions that are in them
# stay (UPGRADE=1 takes the newest), so that adding a library moves nothing else. Needs uv on the PATH.
set -eu
cd "$(dirname "$0")/.."
lock() { # FILE OPTIONS…
    file=$1
    shift
    uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
        --no-emit-index-url --no-emit-find-links ${UPGRADE:+--upgrade} "$@" pyproject.toml -o "$file" >/dev/null
}
lock requirements/run.lock --extra embedded --extra kafka --extra redis --extra geo --extra lab
lock requirements/dev.lock --extra embedded --extra kafka --extra redis --extra geo --extra lab --group dev
