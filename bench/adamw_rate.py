# SPDX-License-Identifier: Apache-2.0
"""AdamW on processors over 100 million parameters, beside PyTorch's and beside what memory carries.

Both sides as processes in turn, one after the other in every round, each with a few steps of its
own; ahead of other work on the machine where that is allowed (nice).  Tessera's step zeroes the
gradient too, and is measured in f32 and with the bf16 copy; its yardstick moves the same bytes
(bench/adamw.c).  PyTorch's step leaves the gradient; its ways are in bench/rival/adamw.py.
"""
import json
import os
import statistics

import common

MILLIONS, THREADS, STEPS = 100, min(2, os.cpu_count()), 5
FIRST = ['nice', '-n', '-15'] if os.geteuid() == 0 else []


def run(command):
    return json.loads(common.Run(FIRST + command, {'OMP_NUM_THREADS': str(THREADS)}).out)


def per_parameter(seconds, count):
    return statistics.median(seconds) / count * 1e9


def bench(context):
    millions = str(4 if common.QUICK else MILLIONS)
    ours = {'f32': [], 'with the bf16 copy': []}
    part, rates, theirs = {k: [] for k in ours}, {k: [] for k in ours}, {}
    for _ in range(max(3, context.rounds)):
        mine = run([context.program('adamw'), millions, str(STEPS)])
        rival = run(['build/rival/bin/python', 'bench/rival/adamw.py', millions, str(STEPS),
                     str(THREADS)])
        for name, step, yard, size in (('f32', 'update', 'yardstick', 'bytes'),
                                       ('with the bf16 copy', 'update_bf16', 'yardstick_bf16',
                                        'bytes_with_bf16')):
            ours[name].append(per_parameter(mine[step], mine['parameters']))
            yardstick = per_parameter(mine[yard], mine['parameters'])
            rates[name].append(mine[size] / ours[name][-1])
            part[name].append(yardstick / ours[name][-1])
        for way, seconds in rival['seconds'].items():
            theirs.setdefault(way, []).append(per_parameter(seconds, rival['parameters']))
        common.say('tessera %.2f ns a parameter, %.0f GB/s; PyTorch %s' % (
            ours['f32'][-1], rates['f32'][-1],
            ', '.join('%s %.2f' % (k, v[-1]) for k, v in theirs.items())))
    common.write(context, 'adamw', {
        'what': 'AdamW over f32 states, ns a parameter', 'parameters': mine['parameters'],
        'threads': THREADS, 'steps_a_round': STEPS, 'pytorch': rival['version'],
        'load_average': common.median_load(),
        'tessera_ns': {k: common.sample(v, 3) for k, v in ours.items()},
        'bytes_a_parameter': {'f32': mine['bytes'], 'with the bf16 copy': mine['bytes_with_bf16']},
        'tessera_gb_per_s': {k: common.sample(v) for k, v in rates.items()},
        'part_of_bandwidth': {k: common.sample(v, 3) for k, v in part.items()},
        'pytorch_ns': {k: common.sample(v, 3) for k, v in theirs.items()},
        'ratio': {k: common.ratio(v, ours['f32']) for k, v in theirs.items()}})
