# SPDX-License-Identifier: Apache-2.0
"""Training in a quarter of the memory that it takes: rate, peak memory, and whether losses and
weights are the same.

A model of 113 M parameters (bench/models/offload.json), updates of 64 pictures in four batches.
The limit is a quarter of the most that an unlimited run was seen with while it trained.  Both runs
in turn in every round; the first update of each is warm-up.
"""
import glob
import hashlib
import json
import os
import re
import shutil
import subprocess
import time

import common

MODEL, BATCH, ACCUMULATE, STEPS = 'bench/models/offload.json', 16, 4, 4
FIRST = ['nice', '-n', '-15'] if os.geteuid() == 0 else []


def peak(pid):
    """Most bytes resident so far, files that it has mapped among them."""
    try:
        with open('/proc/%d/status' % pid, encoding='utf-8') as f:
            return int(re.search(r'VmHWM:\s+(\d+)', f.read()).group(1)) * 1024
    except (OSError, AttributeError):
        return 0


def train(context, name, *more):
    """A run; the most memory until it begins to save, and until its end."""
    logs = os.path.join(context.work, 'runs')
    path = os.path.join(logs, name)
    shutil.rmtree(path, ignore_errors=True)
    command = [context.tessera, 'train', '--train-data', context.shards, '--model', MODEL,
               '--tokenizer', context.tokenizer, '--batch-size', str(BATCH), '--accum-freq',
               str(ACCUMULATE), '--precision', 'fp32', '--lr', '1e-4', '--grad-clip-norm', '1',
               '--steps', str(2 if common.QUICK else STEPS), '--log-every-n-steps', '1',
               '--save-frequency', '1000000', '--logs', logs, '--name', name, '-q', *more]
    with subprocess.Popen(FIRST + command, stdout=subprocess.DEVNULL) as child:
        most = whole = 0
        while child.poll() is None:
            whole = max(whole, peak(child.pid))
            if not glob.glob(os.path.join(path, 'checkpoints', 'step_*')):
                most = whole
            time.sleep(0.02)
    if child.returncode != 0:
        raise SystemExit('bench: exit status %d of: %s' % (child.returncode, ' '.join(command)))
    with open(os.path.join(path, 'metrics.jsonl'), encoding='utf-8') as f:
        steps = [line for line in map(json.loads, f) if 'train/loss' in line]
    with open(os.path.join(path, 'out.log'), encoding='utf-8') as f:
        note = re.search(r'memory limit.*', f.read())
    with open(os.path.join(path, 'model', 'open_clip_model.safetensors'), 'rb') as f:
        weights = hashlib.file_digest(f, 'sha256').hexdigest()
    shutil.rmtree(path)
    seconds = sum(s['train/batch_time'] for s in steps[1:])
    return {'pictures_per_s': BATCH * ACCUMULATE * (len(steps) - 1) / seconds,
            'training_peak': most, 'peak': whole, 'losses': [s['train/loss'] for s in steps],
            'weights': weights, 'note': note.group(0) if note else ''}


def bench(context):
    whole, limited, limit = [], [], 0
    for _ in range(context.rounds):
        whole.append(train(context, 'offload-whole'))
        limit = limit or whole[0]['training_peak'] // 4
        limited.append(train(context, 'offload-limited', '--memory-limit', str(limit)))
        common.say('in memory %.1f pictures/s, %.0f MiB; limited to %.0f MiB %.1f, %.0f MiB' % (
            whole[-1]['pictures_per_s'], whole[-1]['training_peak'] / 2 ** 20, limit / 2 ** 20,
            limited[-1]['pictures_per_s'], limited[-1]['peak'] / 2 ** 20))
    same = all(r['losses'] == whole[0]['losses'] and r['weights'] == whole[0]['weights']
               for r in whole + limited)

    def mib(runs, key):
        return common.sample([r[key] / 2 ** 20 for r in runs])

    common.write(context, 'offload', {
        'what': 'training with a memory limit of a quarter of what it takes, pictures per second',
        'model': MODEL, 'batch': BATCH, 'accumulate': ACCUMULATE, 'precision': 'f32',
        'load_average': common.median_load(), 'limit_mib': round(limit / 2 ** 20, 1),
        'division': limited[0]['note'], 'losses_and_weights_equal': same,
        'in_memory': {'pictures_per_s': common.sample([r['pictures_per_s'] for r in whole], 2),
                      'training_peak_mib': mib(whole, 'training_peak'),
                      'peak_mib': mib(whole, 'peak')},
        'limited': {'pictures_per_s': common.sample([r['pictures_per_s'] for r in limited], 2),
                    'training_peak_mib': mib(limited, 'training_peak'),
                    'peak_mib': mib(limited, 'peak')},
        'ratio': common.ratio([r['pictures_per_s'] for r in limited],
                              [r['pictures_per_s'] for r in whole], 3)})
    if not same:
        raise SystemExit('bench: offload: losses or weights differ')
