#!/bin/sh
# Makes .venv from the lock files; says nothing and is done at once when nothing changed.
# All it asks of the machine is one Python of 3.11 or later; tool/setup.py does the work.
set -eu
cd "$(dirname "$0")/.."

# A name on the PATH is no proof: a version manager's shim may exist for a Python that isn't there. So each is run.
for candidate in "${PYTHON:-}" python3.13 python3.12 python3.11 python3; do
    [ -n "$candidate" ] || continue
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
        exec "$candidate" tool/setup.py "$@"
    fi
done
echo "setup: no Python of 3.11 or later was found. Cure on Debian or Ubuntu: apt-get install -y python3 python3-venv" >&2
echo "       (another place: make setup PYTHON=/path/to/python3)" >&2
exit 2
