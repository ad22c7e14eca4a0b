#!/bin/sh
# What `make check` does: format, lint, types and tidy tests, and how long it took.
set -e
began=$(date +%s)
.venv/bin/ruff format --check .
.venv/bin/ruff check .
.venv/bin/mypy
sh tool/test.sh -q tests/tidy
echo "check: all is well, in $(($(date +%s) - began)) s"
