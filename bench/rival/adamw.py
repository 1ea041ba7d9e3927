#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""PyTorch's AdamW on processors: seconds of a step over N million f32 parameters in a model's
tensors, by way of computing it.

    build/rival/bin/python bench/rival/adamw.py MILLIONS ROUNDS THREADS

Ways, one after the other: default (foreach=None: what a user gets), for-loop, foreach, fused.
Gradients are there and stay (no zero_grad in what is measured); their clipping is not measured.
"""
import json
import sys
import time

import torch


def tensors(count):
    """Shapes of transformer blocks of width 768, after an embedding, until there are so many."""
    width, out = 768, [(32000, 768)]
    block = [(3 * width, width), (3 * width,), (width, width), (width,), (4 * width, width),
             (4 * width,), (width, 4 * width), (width,), (width,), (width,), (width,), (width,)]
    while sum(torch.Size(s).numel() for s in out) < count:
        out += block
    return out


def main():
    count, rounds, threads = int(sys.argv[1]) * 1000000, int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(threads)
    torch.manual_seed(1)
    ways = {'default': {}, 'for-loop': {'foreach': False}, 'foreach': {'foreach': True},
            'fused': {'fused': True}}
    params = [torch.randn(s).mul_(0.02).requires_grad_() for s in tensors(count)]
    for p in params:
        p.grad = torch.randn_like(p).mul_(1e-3)
    seconds = {}
    for way, extra in ways.items():  # one at a time: a way's moments are half of all memory
        optimizer = torch.optim.AdamW(params, lr=1e-4, betas=(0.9, 0.98), eps=1e-6,
                                      weight_decay=0.2, **extra)
        optimizer.step()
        seconds[way] = []
        for _ in range(rounds):
            start = time.perf_counter()
            optimizer.step()
            seconds[way].append(time.perf_counter() - start)
        del optimizer
    print(json.dumps({'version': torch.__version__, 'threads': torch.get_num_threads(),
                      'parameters': sum(p.numel() for p in params), 'tensors': len(params),
                      'seconds': seconds}))


main()
