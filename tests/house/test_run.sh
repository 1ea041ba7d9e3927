#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# tests/run counts what passed, failed, was skipped, crashed, hung or said so itself.
set -u
cd "$(dirname "$0")/../.." || exit 1
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
passed=0 failed=0

# program NAME: makes a test program of the lines on standard input.
program() {
    { echo '#!/bin/bash'; cat; } >"$work/$1"
    chmod +x "$work/$1"
}

# expect "N passed, M failed" EXIT-STATUS PROGRAM...
expect() {
    local line=$1 status=$2 found found_status
    shift 2
    found=$(TEST_LIMIT_SECONDS=1 tests/run --floor no-such-floor "${@/#/$work/}" 2>&1)
    found_status=$?
    if [ "${found##*$'\n'}" = "$line" ] && [ $found_status -eq "$status" ]; then
        passed=$((passed + 1))
    else
        echo "$*: expected \"$line\" and $status, found $found_status and:"
        echo "$found"
        failed=$((failed + 1))
    fi
}

program good <<'END'
echo '[==========] Running 2 test(s).'
echo '[ RUN      ] a'
echo '[       OK ] a'
echo '[       OK ] b'
echo '[  PASSED  ] 2 test(s).'
END
program two_groups <<'END'
echo '[==========] first: Running 1 test(s).'
echo '[       OK ] a'
echo '[==========] second: Running 2 test(s).'
echo '[       OK ] b'
echo '[       OK ] c'
END
program bad <<'END'
echo '[==========] Running 3 test(s).'
echo '[       OK ] a'
echo '[  FAILED  ] b'
echo '[  SKIPPED ] c'
echo '[  SKIPPED ] 1 test(s), listed below:'
echo '[  SKIPPED ] c'
exit 1
END
program crash <<'END'
echo '[==========] Running 3 test(s).'
echo '[       OK ] a'
kill -SEGV $$
END
program leak <<'END'
echo '[==========] Running 1 test(s).'
echo '[       OK ] a'
exit 23
END
program hang <<'END'
sleep 20
END
program counts <<'END'
echo '7 passed, 2 failed'
exit 1
END
program silent_good <<'END'
true
END
program silent_bad <<'END'
exit 3
END

expect '2 passed, 0 failed' 0 good
expect '3 passed, 0 failed' 0 two_groups
expect '1 passed, 1 failed' 1 bad
expect '1 passed, 2 failed' 1 crash
expect '1 passed, 1 failed' 1 leak
expect '0 passed, 1 failed' 1 hang
expect '7 passed, 2 failed' 1 counts
expect '1 passed, 0 failed' 0 silent_good
expect '0 passed, 1 failed' 1 silent_bad
expect '0 passed, 1 failed' 1 missing
expect '0 passed, 0 failed' 1
expect '5 passed, 1 failed' 1 good two_groups silent_bad
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
