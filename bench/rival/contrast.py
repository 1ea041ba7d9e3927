#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""PyTorch's softmax contrastive loss and its gradients, the full matrix, on processors.

    contrast.py MODE BATCH WIDTH THREADS DATA      MODE: f32 bf16 f32_compiled bf16_compiled

OpenCLIP's ClipLoss of one process: both directions' logits and cross entropies.  DATA/features.f32
holds (2,B,Z) unit rows.  The first line says the loss and the peak of resident memory beside
features and gradients; then lines "contrast N" are answered with the mean milliseconds of N calls.
"""
import ctypes
import json
import sys
import threading
import time

import numpy
import torch
import torch.nn.functional as F


def resident(field):
    with open('/proc/self/status', encoding='ascii') as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith(field))


class Peak:
    """The most resident memory within a block, above what there was before."""

    def __enter__(self):
        self.base, self.most, self.on = resident('VmRSS'), 0, True
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self

    def watch(self):
        while self.on:
            self.most = max(self.most, resident('VmRSS') - self.base)
            time.sleep(0.001)

    def __exit__(self, *_):
        self.on = False
        self.thread.join()


def loss_of(image, text, log_scale, labels):
    logits = log_scale.exp() * image @ text.T
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


def main():
    mode, batch, width, threads, folder = sys.argv[1:6]
    batch, width = int(batch), int(width)
    torch.set_num_threads(int(threads))
    data = numpy.fromfile(folder + '/features.f32', dtype=numpy.float32).reshape(2, batch, width)
    image, text = (torch.from_numpy(x.copy()).requires_grad_() for x in data)
    log_scale = torch.tensor(2.6592, requires_grad=True)
    labels = torch.arange(batch)
    function = torch.compile(loss_of) if mode.endswith('_compiled') else loss_of

    def step():
        for x in (image, text, log_scale):
            x.grad = None
        with torch.autocast('cpu', torch.bfloat16, enabled=mode.startswith('bf16')):
            loss = function(image, text, log_scale, labels)
        loss.backward()
        return float(loss)

    loss = step()  # compiles, and sets up the library
    ctypes.CDLL('libc.so.6').malloc_trim(0)
    image.grad = text.grad = None
    with Peak() as peak:
        step()
    beside = peak.most - 2 * batch * width * 4
    print(json.dumps({'loss': loss, 'memory_mb': round(beside / 1e6, 1), 'torch': torch.__version__,
                      'threads': torch.get_num_threads()}), flush=True)
    for line in sys.stdin:
        n = int(line.split()[1])
        begin = time.perf_counter()
        for _ in range(n):
            loss = step()
        print(json.dumps({'ms': round(1e3 * (time.perf_counter() - begin) / n, 3), 'loss': loss}),
              flush=True)


main()
