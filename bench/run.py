#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Runs benches by name and writes their results; script/bench builds what this needs and calls it.

A bench is a function of a Context (bench/common.py) in the table at the end.
"""
import argparse
import hashlib
import json
import os
import shutil
import sys
import time

import adamw_rate
import checkpoint_rate
import common
import contrast_rate
import inference_rate
import offload_rate
import plan_predictions
import ranks_rate
import sentence_rate
import train_rate
import zero_bytes

QUERIES = 'recipes/emoji/queries.tsv'
SEARCHES = 30


def train_briefly(context, name, *flags):
    """A run of the recipe's model; its directory."""
    logs = os.path.join(context.work, 'runs')
    shutil.rmtree(os.path.join(logs, name), ignore_errors=True)
    common.Run([context.tessera, 'train', '--train-data', context.shards, '--model',
                'recipes/emoji/model.json', '--tokenizer', context.tokenizer, '--batch-size', '128',
                '--captions-per-image', '2', '--aug-shift', '2', '--logs', logs, '--name', name,
                '--save-frequency', '1000000', '-q', *flags])
    return os.path.join(logs, name)


# ---- the benches ---------------------------------------------------------------------------

def decode(context):
    out = os.path.join(context.work, 'decode.json')
    common.Run(['bench/decode_pillow.py', '--ours', context.program('decode'), '--out', out,
                '--seconds', str(min(context.seconds, 3)), '--rounds', str(context.rounds)])
    with open(out, encoding='utf-8') as f:
        found = json.load(f)
    common.write(context, 'decode', {'what': 'decode, resize to 224 and normalise, pictures/s',
                                     'pillow': found['pillow'], 'rows': found['rows']})


def tokenize(context):
    run = common.Run(['bench/tokenize_spm.py', context.program('tokenize'), str(context.rounds)])
    common.write(context, 'tokenize', {'what': 'encode, one thread, captions/s',
                                       'rows': [json.loads(line) for line in run.out.splitlines()]})


def search(context):
    """`tessera search --text` from process start to exit, over the recipe's queries in turn."""
    index, made_by = os.path.join(context.demo, 'index'), 'script/demo'
    if not os.path.isdir(index):
        model = os.path.join(train_briefly(context, 'search', '--steps', '6'), 'model')
        index, made_by = os.path.join(context.work, 'index'), 'a short training'
        common.Run([context.tessera, 'index', 'build', '-m', model, '-d', context.shards, '-o',
                    index, '--replace', '-q'])
    with open(QUERIES, encoding='utf-8') as f:
        texts = [line.split('\t')[2] for line in f if not line.startswith('#')]
    n, inside, whole, rss = 5 if common.QUICK else SEARCHES, [], [], 0
    for i in range(n + 1):
        run = common.Run([context.tessera, 'search', '--index', index, '--text',
                          texts[i % len(texts)], '-k', '10', '--json'])
        if i > 0:  # the first fills the page cache
            whole.append(run.seconds * 1e3)
            inside.append(json.loads(run.out)['took_ms'])
            rss = max(rss, run.peak_rss_bytes)
    info = json.loads(common.Run([context.tessera, 'index', 'info', index, '--json']).out)
    common.write(context, 'search', {
        'what': 'tessera search --text, process start included, ms', 'index_made_by': made_by,
        'index': {k: v for k, v in info.items() if isinstance(v, (int, str)) and '/' not in str(v)},
        'process_ms': common.sample(whole), 'took_ms': common.sample(inside),
        'peak_rss_mib': round(rss / 2 ** 20, 1)})


def quality(context):
    """What script/demo measured: recall of held-out captions over all pictures."""
    try:
        with open(os.path.join(context.demo, 'eval.json'), encoding='utf-8') as f:
            found = json.load(f)
        with open(os.path.join(context.demo, 'training.json'), encoding='utf-8') as f:
            training = json.load(f)
    except OSError as e:
        return common.say('quality left out: %s; run script/demo first' % e)
    return common.write(context, 'quality', {
        'what': 'text to image over all pictures, held-out captions, mean over locales with 50',
        'training': training, **found})


def digest(folder):
    """SHA-256 of every file below a folder."""
    hashes = {}
    for top, _, names in sorted(os.walk(folder)):
        for name in sorted(names):
            path = os.path.join(top, name)
            with open(path, 'rb') as f:
                hashes[os.path.relpath(path, folder)] = hashlib.sha256(f.read()).hexdigest()
    return hashes


def repeat(context):
    """Two runs with one seed, one and three loader threads: checkpoints and models byte by byte."""
    sides = []
    for workers in ('1', '3'):
        run = train_briefly(context, 'repeat', '--steps', '6', '--workers', workers, '--seed', '7',
                            '--save-every-n-steps', '3')
        found = {**{'checkpoints/' + k: v for k, v in digest(run + '/checkpoints').items()},
                 **{'model/' + k: v for k, v in digest(run + '/model').items()}}
        sides.append({k: v for k, v in found.items() if k != 'checkpoints/results.jsonl'})
    differ = sorted(k for k in set(sides[0]) | set(sides[1]) if sides[0].get(k) != sides[1].get(k))
    common.write(context, 'repeat', {
        'what': 'six steps with one seed, 1 and 3 loader threads: files of checkpoints and model',
        'files': len(sides[0]), 'identical': not differ, 'differ': differ, 'sha256': sides[0]})
    if differ or not sides[0]:
        raise SystemExit('bench: repeat: these differ: %s' % (' '.join(differ) or 'no files'))


def lora(context):
    """Memory and time of training steps at ViT-B/32 size, all weights and adapters in turn."""
    logs = os.path.join(context.work, 'runs')
    shutil.rmtree(os.path.join(logs, 'lora'), ignore_errors=True)
    common.Run([context.tessera, 'train', '--train-data', context.shards, '--model',
                'bench/models/clip_b32.json', '--tokenizer', context.tokenizer, '--batch-size', '2',
                '--steps', '1', '--logs', logs, '--name', 'lora', '-q'])
    model, batch, tokens, rank = os.path.join(logs, 'lora', 'model'), 32, 20, 8
    modes = (('all weights', 0, 'none'), ('q_proj,v_proj', rank, 'q_proj,v_proj'),
             ('all-linear', rank, 'all-linear'))
    rows = []
    for precision, recompute in (('bf16', 0), ('bf16', 1), ('f32', 0), ('f32', 1)):
        found = [json.loads(common.Run([context.program('lora'), model, str(batch), str(tokens),
                                        str(r), target, str(recompute), '2', precision]).out)
                 for _, r, target in modes]
        for (name, _, _), one in zip(modes, found):
            held = one['states_mb'] + one['workspace_mb']
            whole = found[0]['states_mb'] + found[0]['workspace_mb']
            rows.append({'trained': name, 'grad_checkpointing': bool(recompute), **one,
                         'held_mb': round(held, 1), 'held_ratio': round(held / whole, 3),
                         'peak_rss_ratio': round(one['peak_rss_mb'] / found[0]['peak_rss_mb'], 3),
                         'step_ratio': round(one['step_s'] / found[0]['step_s'], 2)})
            common.say('%-14s %s, checkpointing %d: %.0f MB held (%.3f), %.0f MB peak RSS (%.3f)'
                       % (name, precision, recompute, held, rows[-1]['held_ratio'],
                          one['peak_rss_mb'], rows[-1]['peak_rss_ratio']))
    shutil.rmtree(os.path.join(logs, 'lora'), ignore_errors=True)
    common.write(context, 'lora', {
        'what': 'memory of a training step, ViT-B/32 towers, adapters of rank %d' % rank,
        'batch': batch, 'tokens_per_caption': tokens, 'load': common.median_load(), 'rows': rows})


BENCHES = {'train': train_rate.bench, 'inference': inference_rate.bench,
           'sentence': sentence_rate.bench, 'decode': decode,
           'tokenize': tokenize, 'search': search, 'quality': quality, 'repeat': repeat,
           'lora': lora, 'adamw': adamw_rate.bench, 'offload': offload_rate.bench,
           'contrast': contrast_rate.bench, 'plan': plan_predictions.bench,
           'checkpoint': checkpoint_rate.bench, 'zero': zero_bytes.bench,
           'ranks': ranks_rate.bench}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--build', default='build')
    parser.add_argument('--data', required=True, help='what recipes/emoji/prepare.py made')
    parser.add_argument('names', nargs='*', metavar='NAME', help=' '.join(BENCHES))
    options = parser.parse_args()
    unknown = [n for n in options.names if n not in BENCHES]
    if unknown:
        sys.exit('bench: no %s; expected some of: %s' % (' '.join(unknown), ' '.join(BENCHES)))
    context = common.Context(options.build, options.data, options.names)
    for name in options.names or BENCHES:
        start = time.monotonic()
        print('==> %s' % name, file=sys.stderr, flush=True)
        BENCHES[name](context)
        common.say('%.0f s' % (time.monotonic() - start))


if __name__ == '__main__':
    main()
