#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Exact search of 1M x 512 on a card: build/bench/nearest beside torch.matmul and topk in f32.

    bench/nearest_torch.py [BUILD]

Batches of 1, 64 and 1,024 queries, both sides in one run; a line of JSON each, with the ratio of
the medians.  torch's queries are on the card and its answers stay there; ours come from the host's
memory and go back to it.
"""
import json
import statistics
import subprocess
import sys
import time

import torch

N, DIM, K, SECONDS = 1_000_000, 512, 10, 2.0


def units(n):
    return torch.nn.functional.normalize(torch.randn(n, DIM, device="cuda"))


def rate(rows, queries):
    runs = []
    while len(runs) < 5 or sum(runs) < SECONDS:
        torch.cuda.synchronize()
        start = time.perf_counter()
        torch.topk(torch.matmul(queries, rows.T), K)
        torch.cuda.synchronize()
        runs.append(time.perf_counter() - start)
    return statistics.median(runs[2:])  # two to warm up


def main():
    build = sys.argv[1] if len(sys.argv) > 1 else "build"
    torch.backends.cuda.matmul.allow_tf32 = False  # exact is f32
    for n_queries in (1, 64, 1024):
        ours = json.loads(subprocess.run(
            [build + "/bench/nearest", str(SECONDS), str(n_queries), str(K), str(N), str(DIM)],
            stdout=subprocess.PIPE, check=True).stdout)
        rows = units(N)
        theirs = rate(rows, units(n_queries))
        del rows
        torch.cuda.empty_cache()
        print(json.dumps({**ours, "torch": torch.__version__, "torch_seconds": round(theirs, 9),
                          "ratio": round(theirs / ours["seconds"], 2)}), flush=True)


main()
