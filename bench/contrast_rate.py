# SPDX-License-Identifier: Apache-2.0
"""The softmax contrastive objective and its gradients beside PyTorch's, and a batch above memory.

Sides take turns, one call each, within every round; memory is what a call needs beside features and
their gradients, on either side the growth of the process.
"""
import json
import os
import subprocess

import common

WIDTH, BATCH, LARGE = (64, 512, 1024) if common.QUICK else (512, 16384, 65536)
MODES = ('f32', 'bf16', 'f32_compiled', 'bf16_compiled')
RIVAL = 'build/rival/bin/python'
DRAW = """
import sys, numpy
draw, (batch, width) = numpy.random.default_rng(1), map(int, sys.argv[1:3])
x = draw.standard_normal((2, batch, width), dtype='f4')
x[1] += x[0] / 2
(x / numpy.linalg.norm(x, axis=2, keepdims=True)).tofile(sys.argv[3])
"""


def features(context, batch):
    """(2,B,Z) unit rows of which pairs are alike; the folder that holds them."""
    folder = os.path.join(context.work, 'contrast-%d' % batch)
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, 'features.f32')
    if os.path.isfile(path) and os.path.getsize(path) == 8 * batch * WIDTH:
        return folder
    common.Run([RIVAL, '-c', DRAW, str(batch), str(WIDTH), path + '.part'])
    os.rename(path + '.part', path)
    return folder


class Side:
    """A program that says what it is, and then answers how long a call takes."""

    def __init__(self, *command):
        self.process = subprocess.Popen([str(c) for c in command], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit('bench: contrast: nothing came of: %s' % ' '.join(map(str, command)))
        self.about, self.ms = json.loads(line), []

    def ask(self):
        self.process.stdin.write(b'contrast 1\n')
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        self.ms.append(answer['ms'])
        return answer

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def compare(context, threads):
    folder = features(context, BATCH)
    sides = {'tessera': Side(context.program('contrast'), BATCH, WIDTH, threads, folder)}
    for mode in MODES:
        sides[mode] = Side(RIVAL, '-W', 'ignore', 'bench/rival/contrast.py', mode, BATCH, WIDTH,
                           threads, folder)
    for _ in range(context.rounds):
        for side in sides.values():
            side.ask()
    ours, rows = sides['tessera'], []
    for name, side in sides.items():
        side.close()
        rows.append({'side': name, **side.about, 'ms': common.sample(side.ms),
                     'speedup': common.ratio(side.ms, ours.ms),
                     'memory_ratio': round(side.about['memory_mb'] / ours.about['memory_mb'], 1)})
        common.say('%-13s %8.0f ms, %7.1f MB' % (name, rows[-1]['ms']['median'],
                                                 side.about['memory_mb']))
    return rows


def large(context, threads):
    side = Side(context.program('contrast'), LARGE, WIDTH, threads, features(context, LARGE))
    side.ask()
    side.close()
    both = 4 * LARGE * WIDTH * 4 / 1e6
    total = round(both + side.about['memory_mb'], 1)
    common.say('a batch of %d: %.0f ms, %.0f MB with features and gradients'
               % (LARGE, side.ms[0], total))
    return {**side.about, 'batch': LARGE, 'ms': side.ms[0], 'features_and_gradients_mb': both,
            'all_mb': total}


def cached(context):
    """Peak memory of a training's process: a batch, 8 times it, and 8 of it under one loss."""
    rows, batch = [], 16 if common.QUICK else 128
    for name, size, parts in (('a batch', batch, 1), ('8 times as large', 8 * batch, 1),
                              ('8 of it, one loss', batch, 8)):
        logs = os.path.join(context.work, 'runs')
        run = common.Run([context.tessera, 'train', '--train-data', context.shards, '--model',
                          'recipes/emoji/model.json', '--tokenizer', context.tokenizer,
                          '--captions-per-image', '2', '--batch-size', str(size), '--accum-freq',
                          str(parts), '--steps', '3', '--save-frequency', '1000000', '--logs', logs,
                          '--name', 'cached-%d-%d-%d' % (size, parts, os.getpid()), '-q'])
        rows.append({'batch': name, 'batch_size': size, 'accum_freq': parts,
                     'peak_rss_mb': round(run.peak_rss_bytes / 1e6, 1)})
        common.say('%-18s %.0f MB' % (name, rows[-1]['peak_rss_mb']))
    return rows


def bench(context):
    if subprocess.run(['bench/rival/setup'], stdout=subprocess.DEVNULL, check=False).returncode:
        raise SystemExit('bench: contrast: bench/rival/setup failed')
    threads = len(os.sched_getaffinity(0))
    content = {'what': 'softmax contrastive objective, forward and backward, ms a call, and MB '
                       'beside features and gradients', 'batch': BATCH, 'width': WIDTH,
               'threads': threads, 'rows': compare(context, threads),
               'large': large(context, threads), 'cached': cached(context),
               'load': common.median_load()}
    common.write(context, 'contrast', content)
