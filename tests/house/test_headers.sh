#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Each public header compiles alone, as C17 and as C++17, with the strictest standard settings: users
# include one of them first in a file of their own.
set -u
cd "$(dirname "$0")/../.." || exit 1

passed=0 failed=0
check() {
    if printf '#include "tessera/%s"\n#include "tessera/%s"\n' "$2" "$2" |
        $1 -fsyntax-only -Wall -Wextra -Wpedantic -Werror -Iinclude -; then
        passed=$((passed + 1))
    else
        echo "tessera/$2: does not compile alone with: $1"
        failed=$((failed + 1))
    fi
}

for path in include/tessera/*.h; do
    check "${CC:-gcc} -x c -std=c17" "${path##*/}"
    check "${CXX:-g++} -x c++ -std=c++17" "${path##*/}"
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
