# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of a ViT-B/32 model: the rate of a save beside plain writers of as many bytes, and what
the steps cost during which one is written (bench/checkpoint.c, which takes the sides in turn)."""
import json
import os
import shutil

import common

PLAIN = ('cached_mb_s', 'direct_mb_s', 'direct_two_mb_s')


def bench(context):
    batch, accumulate, tokens, rounds = (8, 1, 20, 1) if common.QUICK else (64, 2, 20, 5)
    folder = os.path.join(context.work, 'checkpoint')
    arguments = ['bench/models/clip_b32.json', context.tokenizer, folder, str(batch),
                 str(accumulate), str(tokens), str(rounds), 'bf16']
    run = common.Run([context.program('checkpoint'), *arguments])
    shutil.rmtree(folder, ignore_errors=True)
    rows = [json.loads(line) for line in run.out.splitlines()]
    raw = [max(row[side] for side in PLAIN) for row in rows]
    sync = [row['sync_mb_s'] for row in rows]
    ratio = common.ratio([row['step_saving_s'] for row in rows],
                         [row['step_alone_s'] for row in rows], 3)
    common.write(context, 'checkpoint', {
        'what': 'writing a checkpoint: MB/s beside the fastest plain writer, and steps during it',
        'program': 'checkpoint ' + ' '.join(arguments[3:]), 'batch': batch,
        'micro_steps': accumulate, 'load': common.median_load(),
        'parameters': rows[0]['parameters'], 'bytes': rows[0]['bytes'],
        'raw_mb_s': common.sample(raw), 'sync_mb_s': common.sample(sync),
        'sync_of_raw': common.ratio(sync, raw), 'step_ratio': ratio,
        'steps_overlapped': common.sample([row['steps_overlapped'] for row in rows]), 'rows': rows})
    common.say('sync %.0f MB/s of %.0f raw (%.2f); a step during a save takes %.3f of one alone' % (
        common.sample(sync)['median'], common.sample(raw)['median'],
        common.ratio(sync, raw)['median'], ratio['median']))
