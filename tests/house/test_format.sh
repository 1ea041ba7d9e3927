#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# clang-format would change nothing in the C and C++ files that git tracks.
set -u
cd "$(dirname "$0")/../.." || exit 1

if ! command -v clang-format >/dev/null; then
    echo "skipped: clang-format is not installed"
    echo "0 passed, 0 failed"
    exit 0
fi
if ! git rev-parse --git-dir >/dev/null 2>&1; then
    echo "skipped: not a git checkout"
    echo "0 passed, 0 failed"
    exit 0
fi
mapfile -t files < <(git ls-files '*.c' '*.h' '*.cpp' '*.cu' '*.cuh' | while read -r f; do
    [ -e "$f" ] && echo "$f"
done)
mapfile -t bad < <(clang-format --dry-run "${files[@]}" 2>&1 |
    sed -nE 's/^([^ :]+):[0-9].*/\1/p' | sort -u)
for file in "${bad[@]}"; do
    echo "$file: run clang-format -i on it"
done
echo "$((${#bad[@]} == 0)) passed, $((${#bad[@]} > 0)) failed"
[ ${#bad[@]} -eq 0 ]
