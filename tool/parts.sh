#!/bin/sh
# What `make test-parts` does: what measures latencies has the machine alone; all else, which mostly waits for brokers
# and servers that come and go, in two processes, the tests of a file in one of them. Ends with the sum of both counts.
set -u
cd "$(dirname "$0")/.."
export SEAWALL_TEST_ROOT=1
marks="(root or parts) and not soak"
# Named tests are meant alone.
if [ $# -gt 0 ]; then exec sh tool/test.sh -q -m "$marks" "$@"; fi
out=$(mktemp) && trap 'rm -f "$out"' EXIT
worst=0
run() {
    { sh tool/test.sh -q -m "$marks" "$@" || echo "ended badly"; } 2>&1 | tee -a "$out"
}
alone="tests/fault/test_outage_matrix.py tests/fault/test_matrix_parts.py"
# Unquoted: several arguments each.
run $alone
run -n 2 --dist loadfile $(printf -- '--ignore=%s ' $alone)
if grep -q '^ended badly$' "$out"; then worst=1; fi
awk '/^[0-9]+ passed, [0-9]+ failed(, [0-9]+ skipped)?$/ { passed += $1; failed += $3; skipped += $5 }
     END { printf "\n%d passed, %d failed%s\n", passed, failed, skipped ? ", " skipped " skipped" : "" }' "$out"
exit "$worst"
