#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# script/gpu without a card: exit status 2, a sentence, and nothing written; what a build lacks is
# named; with a card that a stand-in for nvidia-smi pretends, stages that fail are named, and their
# results say so.
set -u -o pipefail
cd "$(dirname "$0")/../.." || exit 1

work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
passed=0 failed=0

check() { # check NAME COMMAND...
    local name=$1
    shift
    if "$@"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAILED  $name"
        cat "$work/said"
    fi
}

says() {
    grep -qF -- "$1" "$work/said"
}

# A tree with the scripts alone, so that nothing here is built or written.
mkdir -p "$work/tree/script" "$work/tree/bench/results" "$work/bin" "$work/none"
cp script/gpu "$work/tree/script/"
cp bench/{common,gpu_summary}.py "$work/tree/bench/"
# In place of the benches: waits to be told to go, and says what became of them.
cat >"$work/tree/bench/gpu_run.py" <<'END'
import json, os, sys, time
o = dict(zip(sys.argv[1::2], sys.argv[2::2]))
while not os.path.exists(o['--go']):
    time.sleep(0.05)
assert os.path.exists(o['--built']) and float(o['--until']) > time.time()
json.dump({'train': 'measured', 'search': 'no time was left'}, open(o['--report'], 'w'))
sys.exit(1)
END

# The commands that it needs, in a folder of their own: what is not in it is not installed.
for tool in bash env dirname mkdir mktemp cat tail head tar xz touch cp find ls sed rm timeout sleep \
    nproc git grep; do
    ln -s "$(command -v "$tool")" "$work/none/$tool"
done
printf '#!/bin/bash\nexec %s "$@"\n' /usr/bin/python3 >"$work/none/python3"
chmod +x "$work/none/python3"

run() { # run PATH ARGUMENTS...
    local path=$1
    shift
    (cd "$work/tree" && PATH=$path GPU_SECONDS=20 bash script/gpu "$@") >"$work/said" 2>&1
    status=$?
}

run "$work/none"
check "no card: exit status 2" [ "$status" -eq 2 ]
check "no card: a sentence" says "no NVIDIA card is visible (nvidia-smi): nothing was run"
check "no card: nothing in bench/results" [ -z "$(ls -A "$work/tree/bench/results")" ]
check "no card: no folder" [ ! -e "$work/tree/build" ]

run "$work/none" --help
check "help: exit status 2" [ "$status" -eq 2 ]
check "help: what it does" says "unattended and within 8 minutes"

# A card, and nothing to build with.
printf '#!/bin/bash\necho "NVIDIA Test, 580.1, 1000 MiB"\n' >"$work/bin/nvidia-smi"
chmod +x "$work/bin/nvidia-smi"
run "$work/bin:$work/none"
check "nothing to build with: exit status 1" [ "$status" -eq 1 ]
check "nothing to build with: the compilers" says "gcc g++ make"
check "nothing to build with: the packages" says "libdnnl-dev libfaiss-dev libjpeg62-turbo-dev"
check "nothing to build with: a way out" says "run \`script/gpu carry\` where it is installed"
check "nothing to build with: nothing written" [ -z "$(ls -A "$work/tree/bench/results")" ]

# Programs that were brought along: one test passes, one fails, one hangs within its time.
program() { # program PATH LINES...
    local path=$work/tree/build/carry/$1
    shift
    mkdir -p "${path%/*}"
    printf '#!/bin/bash\n%s\n' "$*" >"$path"
    chmod +x "$path"
}
program tessera 'echo "{\"processor\": {\"model\": \"P\", \"cores_usable\": 1}, \"tessera_will_use\":
    {\"instruction_set\": \"avx2\"}, \"memory\": {\"total_bytes\": 1}, \"system\": {\"kernel\": \"k\",
    \"tessera\": \"1\"}, \"libraries\": {\"onednn\": \"3\"}}"'
program gpu-tests/test_cuda_ops 'echo "[       OK ] one"; echo "differences of 1e-7"'
program gpu-tests/test_cuda_broken 'echo "it does not work"; exit 1'
program gpu-tests/test_cuda_repeat 'echo "[       OK ] twice"'
program bin/compute-sanitizer 'echo "========= ERROR SUMMARY: 0 errors"'
mkdir -p "$work/tree/build/carry/lib"
echo 0123456789ab >"$work/tree/build/carry/commit"
mv "$work/tree/build/carry/bin/compute-sanitizer" "$work/bin/"
printf '#!/bin/bash\nexit 0\n' >"$work/bin/ldd"
chmod +x "$work/bin/ldd"
tar -C "$work/tree/build" -c carry | xz -0 >"$work/tree/build/gpu-carry.tar.xz"
rm -rf "$work/tree/build/carry"

run "$work/bin:$work/none" "$work/tree/out"
check "a test fails: exit status 1" [ "$status" -eq 1 ]
check "a test fails: by name" says "FAILED  0 s  test_cuda_broken (exit status 1)"
check "a test fails: what it said" says "it does not work"
check "the others pass" says "ok      0 s  test_cuda_repeat"
result=$work/tree/bench/results/gpu_tests.json
check "its results" test -s "$result"
field() {
    python3 -c "import json, sys; r = json.load(open(sys.argv[1])); print($1)" "$result"
}
check "not ok" [ "$(field 'r["ok"]')" = False ]
check "the card" [ "$(field 'r["machine"]["card"] + r["machine"]["driver"]')" = "NVIDIA Test580.1" ]
check "the commit" [ "$(field 'r["commit"]')" = 0123456789ab ]
check "a test's count" [ "$(field 'r["stages"]["test_cuda_ops"]["passed"]')" = 1 ]
check "what it said" [ "$(field 'r["stages"]["test_cuda_ops"]["said"]')" = "['differences of 1e-7']" ]
check "the sanitizer's" [ "$(field 'r["stages"]["memcheck-ops"]["summary"]')" = "0 errors" ]
check "a failure" [ "$(field 'r["stages"]["test_cuda_broken"]["why"]')" = "exit status 1" ]
check "the benches are not forgotten" [ "$(field 'r["stages"]["benches"]["ok"]')" = False ]
check "what was left out" [ "$(field 'r["benches"]["search"]')" = "no time was left" ]
check "OUT has the log" grep -q "it does not work" "$work/tree/out/log.txt"
check "OUT has the results" cmp -s "$result" "$work/tree/out/gpu_tests.json"
check "OUT has at most 8 files" [ "$(find "$work/tree/out" -type f | wc -l)" -le 8 ]

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
