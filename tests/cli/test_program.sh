#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The built program from outside: streams, exit codes, environment, signals, completion.
# BUILD names the build directory; without a program there the test is skipped.
set -u
cd "$(dirname "$0")/../.." || exit 1
tessera=${BUILD:-build}/tessera
model=tests/fixtures/text/unigram.model
if [ ! -x "$tessera" ]; then
    echo "$tessera is not built"
    echo "0 passed, 0 failed"
    exit 0
fi
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
unset "${!TESSERA_@}"
export COLUMNS=80 TERM=xterm

passed=0 failed=0
# check NAME CONDITION...: one test.
check() {
    local name=$1
    shift
    if "$@"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAILED: $name"
        head -c 2000 "$work/out" "$work/err"
    fi
}
# Runs the program; sets rc, and leaves out and err.
run() {
    "$tessera" "$@" >"$work/out" 2>"$work/err" </dev/null
    rc=$?
}
out_has() { grep -qF -- "$1" "$work/out"; }
err_has() { grep -qF -- "$1" "$work/err"; }
quiet_out() { [ ! -s "$work/out" ]; }
quiet_err() { [ ! -s "$work/err" ]; }
is() { [ "$1" = "$2" ]; }

run --version
check "version" is "$rc:$(cat "$work/out")" "0:tessera $(cat VERSION)"
check "version says nothing else" quiet_err
run --version --json
check "version as JSON" is "$(cat "$work/out")" "{\"tessera\":\"$(cat VERSION)\"}"

run
check "no verb is a usage error" is "$rc" 2
check "no verb shows the verbs" err_has "Usage: tessera VERB"
check "no verb leaves stdout alone" quiet_out
run --help
check "help is a result" out_has "Usage: tessera VERB"
check "help succeeds" is "$rc" 0
run doctor --help --bogus
check "an unknown option" is "$rc" 2
run help doctor
cp "$work/out" "$work/help"
run doctor --help
check "help VERB and VERB --help agree" cmp -s "$work/out" "$work/help"
run help nothing
check "help of nothing" is "$rc" 2
run dcotor
check "a suggestion" err_has "did you mean 'doctor'?"
run doctor extra
check "an argument too many" is "$rc" 2
check "errors begin with the program's name" grep -q '^tessera: ' "$work/err"
check "and end with where to look" err_has "Try 'tessera doctor --help'."

for verb in $("$tessera" help | sed -n '/^Verbs:/,/^$/s/^  \([a-z]*\( [a-z]*\)\?\)  .*/\1/p' | tr ' ' _); do
    # shellcheck disable=SC2086 # a verb may be two words
    run ${verb//_/ } --help
    check "help of $verb" is "$rc" 0
    check "help of $verb has examples" out_has "Examples:"
    check "help of $verb fits 80 columns" \
        test -z "$(sed '/^Examples:/,/^$/d' "$work/out" | LC_ALL=C.UTF-8 grep -E '^.{81}')"
    # shellcheck disable=SC2086
    run ${verb//_/ } --print-config
    check "print-config of $verb is JSON" python3 -m json.tool "$work/out" /dev/null
    cp "$work/out" "$work/config.json"
    # shellcheck disable=SC2086
    run ${verb//_/ } --config "$work/config.json" --print-config
    check "print-config of $verb reads back" cmp -s "$work/out" "$work/config.json"
done

run doctor --json
check "doctor as JSON" python3 -c '
import json, sys
d = json.load(open(sys.argv[1]))
assert d["processor"]["cores_usable"] >= 1 and d["memory"]["total_bytes"] > 0
assert d["tessera_will_use"]["threads"] >= 1 and d["libraries"]["jansson"]
' "$work/out"
run doctor
check "doctor in words" out_has "instruction set"
check "no escapes in a file" test -z "$(grep $'\033' "$work/out")"
TESSERA_ISA=avx2 run doctor
check "doctor follows TESSERA_ISA" grep -qE 'instruction set +(avx2|base)' "$work/out"
TESSERA_JSON=1 run doctor
check "an environment variable" out_has '"processor"'
TESSERA_JSON=1 run doctor --no-json
check "a flag beats it" out_has "instruction set"
TESSERA_JSON=perhaps run doctor
check "a wrong variable is named" err_has "TESSERA_JSON: expected true or false"
check "a wrong variable is a usage error" is "$rc" 2

run tokenize --model $model "A red car"
check "tokenize" is "$rc:$(wc -l <"$work/out")" "0:2"
run tokenize --model $model --format ids "A red car"
cp "$work/out" "$work/ids"
printf 'A red car\n' | "$tessera" tokenize --model $model --format ids - >"$work/out"
check "tokenize reads standard input" cmp -s "$work/out" "$work/ids"
TESSERA_MODEL=$model run tokenize --json "A red car"
check "tokenize as JSON" python3 -c '
import json, sys
d = json.load(open(sys.argv[1]))
ids = open(sys.argv[2]).read().split()
assert [str(i) for i in d["ids"]] == ids and len(d["pieces"]) == len(ids)
' "$work/out" "$work/ids"
run tokenize "A red car"
check "tokenize without a model" is "$rc" 2
run tokenize --model Makefile x
check "a model that is none" is "$rc" 1
check "names the file" err_has "Makefile: "
run --log-format json tokenize --model Makefile x
check "an error as JSON" python3 -c '
import json, sys
d = json.load(open(sys.argv[1]))
assert d["level"] == "error" and "Makefile" in d["message"] and d["time"] > 1.6e9
' "$work/err"

"$tessera" help >/dev/full 2>"$work/err"
check "a full disk" is "$?:$(grep -c 'standard output' "$work/err")" "1:1"
"$tessera" man 2>"$work/err" | head -n 1 >"$work/out"
check "a closed pipe is no error" quiet_err

script -qec "'$tessera' dcotor" /dev/null >"$work/out" 2>&1
check "colour on a terminal" grep -q $'\033\[1;31m' "$work/out"
NO_COLOR=1 script -qec "'$tessera' dcotor" /dev/null >"$work/out" 2>&1
check "NO_COLOR" test -z "$(grep $'\033' "$work/out")"
TERM=dumb script -qec "'$tessera' dcotor" /dev/null >"$work/out" 2>&1
check "TERM=dumb" test -z "$(grep $'\033' "$work/out")"

run man
check "the manual page" out_has '.SS "tessera doctor"'
if command -v groff >/dev/null; then
    check "roff without warnings" \
        test -z "$(groff -man -Tutf8 -Kutf8 -ww "$work/out" 2>&1 >/dev/null)"
fi
for shell in bash zsh fish; do
    run completion $shell
    check "completion for $shell" out_has "doctor"
    if command -v $shell >/dev/null; then
        check "syntax of completion for $shell" $shell -n "$work/out"
    fi
done
run completion csh
check "completion for csh" is "$rc" 2

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
