# SPDX-License-Identifier: Apache-2.0
"""Ranks: pictures per second of two ranks with a core each beside one process with both cores, the
same model, global batch and steps.  Sides take turns; the first window is warm-up."""
import json
import os
import shutil

import common

MODEL, BATCH, CAPTIONS, WINDOW, WINDOWS = 'bench/models/emoji_rival.json', 512, 2, 5, 3
ENV = {'OMPI_ALLOW_RUN_AS_ROOT': '1', 'OMPI_ALLOW_RUN_AS_ROOT_CONFIRM': '1',
       'OMPI_MCA_plm': 'isolated'}


def rate(context, n_ranks, steps, flags):
    logs = os.path.join(context.work, 'runs')
    shutil.rmtree(os.path.join(logs, 'ranks'), ignore_errors=True)
    launch = [] if n_ranks == 1 else ['mpirun', '-n', str(n_ranks), '--bind-to', 'core']
    run = common.Run(launch + [
        context.tessera, 'train', '--train-data', context.shards, '--model', MODEL, '--tokenizer',
        context.tokenizer, '--batch-size', str(BATCH // n_ranks), '--captions-per-image',
        str(CAPTIONS), '--lr', '1e-3', '--warmup', '50', '--cache-size', '48', '--logs', logs,
        '--name', 'ranks', '--log-every-n-steps', str(WINDOW), '--save-frequency', '1000000',
        '--steps', str(steps), '-q'] + flags, ENV)
    with open(os.path.join(logs, 'ranks', 'metrics.jsonl'), encoding='utf-8') as f:
        lines = [json.loads(line) for line in f]
    timed = [line for line in lines if line['step'] > WINDOW]
    seconds = sum(line['train/batch_time'] * WINDOW for line in timed)
    return {'pictures_per_s': BATCH * WINDOW * len(timed) / seconds, 'loss': lines[-1]['train/loss'],
            'peak_rss_bytes': run.peak_rss_bytes}


def bench(context):
    steps = WINDOW * (2 if common.QUICK else 1 + WINDOWS)
    sides = {'one process, two cores': (1, []), 'two ranks, a core each': (2, []),
             'two ranks, --zero 1': (2, ['--zero', '1'])}
    found = {name: [] for name in sides}
    for _ in range(context.rounds):
        for name, (n_ranks, flags) in sides.items():
            found[name].append(rate(context, n_ranks, steps, flags))
            common.say('%-24s %.1f pictures/s' % (name, found[name][-1]['pictures_per_s']))
    rates = {name: [r['pictures_per_s'] for r in runs] for name, runs in found.items()}
    alone = rates['one process, two cores']
    common.write(context, 'ranks', {
        'what': 'training with %d pictures a step, %d captions each, %s' % (BATCH, CAPTIONS, MODEL),
        'load': common.median_load(),
        'pictures_per_s': {name: common.sample(r) for name, r in rates.items()},
        'beside_one_process': {name: common.ratio(r, alone, 3) for name, r in rates.items()
                               if r is not alone},
        'last_loss': {name: runs[-1]['loss'] for name, runs in found.items()}})
