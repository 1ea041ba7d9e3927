#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Without a card: every function that the device looks up in a library by name is there, under the
# name by which the library is opened, with the type that its own header declares; and what the
# emulated headers of this folder say (numbers, functions' types) is what the real ones say.
#
# Needs the CUDA toolkit and cuDNN; a part whose library is not installed is skipped by name.
set -u -o pipefail
cd "$(dirname "$0")/../.." || exit 1

nvcc=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
home=$(dirname "$(dirname "$(readlink -f "$nvcc")")")
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
cc=(${CC:-gcc} -std=gnu17 -Wall -Werror "-isystem$home/include")
passed=0 failed=0

verdict() { # verdict NAME STATUS
    if [ "$2" -eq 0 ]; then
        passed=$((passed + 1))
        echo "ok      $1"
    else
        failed=$((failed + 1))
        echo "FAILED  $1"
        cat "$work/log"
    fi
}

# The names that sources list as X(PREFIX...), and a program that finds each twice: as the linker
# does, and as the device does.
symbols() { # symbols PREFIX HEADER
    local prefix=$1 header=$2 names file
    names=$(grep -hoE "X\($prefix[A-Za-z0-9_]+\)" src/tensor/*.[ch] | sort -u)
    file=$(grep -hoE "dlopen\(\"lib$prefix[A-Za-z]*\.so\.[0-9]+\"" src/tensor/*.c | cut -d'"' -f2 | sort -u)
    [ -n "$names" ] && [ "$(wc -l <<<"$file")" -eq 1 ] || return 2
    {
        printf '#include <dlfcn.h>\n#include <stdio.h>\n#include <%s>\n' "$header"
        printf '#define X(name) {#name, (void *)(__typeof__(&name))name},\n'
        printf 'static const struct { const char *name; void *linked; } all[] = {\n%s\n};\n' "$names"
        cat <<'MAIN'
int main(int argc, char **argv)
{
    void *library = argc > 1 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) : NULL;
    int missing = library ? 0 : printf("%s\n", dlerror());
    for (unsigned i = 0; library && i < sizeof all / sizeof all[0]; i++) {
        if (!all[i].linked || dlsym(library, all[i].name) != all[i].linked) {
            missing = printf("%s is not in %s\n", all[i].name, argv[1]);
        }
    }
    printf("%d functions\n", (int)(sizeof all / sizeof all[0]));
    return missing != 0;
}
MAIN
    } >"$work/$prefix.c"
    "${cc[@]}" -o "$work/$prefix" "$work/$prefix.c" -L"$home/lib64" -Wl,-rpath,"$home/lib64" \
        "-l$prefix" -ldl && LD_LIBRARY_PATH=$home/lib64 "$work/$prefix" "$file"
}

# An emulated header's numbers and prototypes, compiled under the real one.
agrees() { # agrees HEADER [PLANTED LINE]
    {
        printf '#include <%s>\n' "$1"
        grep -oE '\b[A-Za-z_0-9]+ = [0-9]+' "tests/cuda/$1" |
            sed 's/\(.*\) = \(.*\)/_Static_assert(\1 == \2, "\1");/'
        sed -n '/^[a-z].*(/,/;$/p' "tests/cuda/$1" | sed '/^#/d; /^}/d'
        printf '%s\n' "${2-}"
    } >"$work/agrees.c"
    "${cc[@]}" -c -o /dev/null "$work/agrees.c"
}

part() { # part PREFIX HEADER
    if [ ! -e "$home/include/$2" ] || [ ! -e "$home/lib64/lib$1.so" ]; then
        echo "skipped: lib$1 and $2 are not installed below $home"
    elif ! grep -qE "X\($1" src/tensor/*.[ch]; then
        echo "skipped: nothing is looked up in lib$1"
    else
        symbols "$1" "$2" >"$work/log" 2>&1
        local status=$?
        verdict "lib$1: $(tail -n 1 "$work/log")" "$status"
    fi
}

part cublasLt cublasLt.h
part cudnn cudnn.h
for header in cuda_runtime_api.h cublasLt.h cudnn_graph.h; do
    if [ ! -e "$home/include/$header" ]; then
        echo "skipped: $header is not installed below $home"
        continue
    fi
    agrees "$header" >"$work/log" 2>&1
    verdict "$header is emulated as it is" $?
    ! agrees "$header" '_Static_assert(cudaSuccess == 1, "planted");' >"$work/log" 2>&1 &&
        ! agrees "$header" 'char cudaGetErrorString(int);' >"$work/log" 2>&1
    verdict "a wrong number or type in $header would be found" $?
done
# FP8 numbers beside cuda_fp8.h's own for processors: every 251st f32.
numbers() { # numbers [PLANTED OPTION]
    cat >"$work/fp8.c" <<'MAIN'
#include <cuda_fp8.h>
#include <stdio.h>
#include "tensor/fp8.h"
int main(void)
{
    long n = 0, wrong = 0;
    for (uint64_t u = 0; u <= 0xffffffffu; u += 251, n++) {
        const float x = tess__f32_of((uint32_t)u);
        wrong += tess__f8_round(x, 3) != __nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E4M3);
        wrong += tess__f8_round(x, 2) != __nv_cvt_float_to_fp8(x, SATURATION, __NV_E5M2);
    }
    printf("%ld numbers, %ld wrong\n", n, wrong);
    return wrong != 0;
}
MAIN
    "${cc[@]}" -O2 -Isrc "-DSATURATION=${1-__NV_SATFINITE}" -o "$work/fp8" "$work/fp8.c" -lm &&
        "$work/fp8"
}

if [ -e "$home/include/cuda_fp8.h" ]; then
    numbers >"$work/log" 2>&1
    verdict "cuda_fp8.h: $(tail -n 1 "$work/log")" $?
    ! numbers __NV_NOSAT >"$work/log" 2>&1
    verdict "numbers other than cuda_fp8.h's would be found" $?
else
    echo "skipped: cuda_fp8.h is not installed below $home"
fi
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
