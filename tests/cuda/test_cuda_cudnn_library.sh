#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Without a card: the installed cuDNN takes the graphs of attention, told that it compiles for an
# H200, and proposes engines and compiles kernels for them.
#
# Needs the CUDA toolkit, its stub of the driver's library, and cuDNN; skipped without them.
set -u -o pipefail
cd "$(dirname "$0")/../.." || exit 1

build=${BUILD:-build}
nvcc=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
home=$(dirname "$(dirname "$(readlink -f "$nvcc")")")
for need in "$home/include/cudnn_graph.h" "$home/lib64/libcudnn.so.9" "$home/lib64/stubs/libcuda.so"; do
    if [ ! -e "$need" ]; then
        echo "skipped: $need is not installed"
        echo "0 passed, 0 failed"
        exit 0
    fi
done
if grep -q __asan_init "$build/lib/base.a"; then
    echo "skipped: under a sanitizer"
    echo "0 passed, 0 failed"
    exit 0
fi
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
ln -s "$home/lib64/stubs/libcuda.so" "$work/libcuda.so.1"
"${CC:-gcc}" -std=gnu17 -D_GNU_SOURCE -Wall -Werror -Iinclude -Isrc "-isystem$home/include" \
    -Wl,--wrap=dlsym -o "$work/asks" tests/cuda/cudnn_asks.c src/tensor/cuda_cudnn.c \
    src/tensor/attention_graph.c "$build/lib/base.a" -ljansson -lxxhash -lz -lpthread -lm -ldl &&
    LD_LIBRARY_PATH=$home/lib64:$work timeout 120 "$work/asks"
