# SPDX-License-Identifier: Apache-2.0
"""Embedding: milliseconds of pictures and of a text query beside PyTorch and ONNX Runtime; and how
fast a large model opens, and what a second process adds.

All sides are processes that wait; they are asked in turn, a few calls each, so that whatever else
the machine does falls on all of them.  Tessera's model is bench/models/clip_b32.json with seeded
random weights, packed; the rivals' have the same shapes.
"""
import json
import os
import subprocess

import common

MODELS, PYTHON = 'bench/models', 'build/rival/bin/python'
OURS = ('int8', 'bf16', 'f32')
RIVALS = ('torch', 'compile', 'ort', 'ort-int8')
CALLS = {'picture32': 6, 'picture1': 12, 'text16': 30, 'text77': 12}


class Side:
    """A waiting process that answers "CASE N" with a list of milliseconds."""

    def __init__(self, command, greets):
        env = {**os.environ, 'OMP_WAIT_POLICY': 'passive', 'GOMP_SPINCOUNT': '10000'}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        env=env if not greets else None, text=True)
        self.versions = json.loads(self.process.stdout.readline()) if greets else {}

    def ask(self, case, n):
        self.process.stdin.write('%s %d\n' % (case, n))
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit('bench: a side of inference ended early')
        return json.loads(line)

    def memory(self):
        """Bytes: resident, and those that no other process shares."""
        found = {}
        with open('/proc/%d/smaps_rollup' % self.process.pid, encoding='ascii') as f:
            for line in f:
                parts = line.split()
                if parts[-1] == 'kB':
                    found[parts[0].rstrip(':')] = 1024 * int(parts[1])
        return found

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def make_model(context, name, precisions):
    """Directories of one seeded model, each packed in its own precision; what packing measured."""
    folders, measured = {}, {}
    for precision in precisions:
        folder = os.path.join(context.work, name + '-' + precision)
        if not os.path.exists(folder + '/open_clip_model.safetensors'):
            common.Run([context.program('inference'), 'make', '%s/%s.json' % (MODELS, name),
                        context.tokenizer, folder])
        if not os.path.exists(folder + '.packed'):
            run = common.Run([context.tessera, 'pack', '-m', folder, '--precision', precision,
                              '--json'])
            with open(folder + '.packed', 'w', encoding='utf-8') as f:
                f.write(run.out)
        with open(folder + '.packed', encoding='utf-8') as f:
            measured[precision] = json.load(f)
        folders[precision] = folder
    return folders, measured


def measure_speed(context, folders):
    exported = os.path.join(context.work, 'clip_b32_onnx')
    if not os.path.exists(exported + '/text-int8-channel.onnx'):
        common.Run([PYTHON, 'bench/rival/inference.py', 'export', exported])
    sides = {'tessera ' + p: Side([context.program('inference'), 'run', folders[p], 'auto'], False)
             for p in OURS}
    # Compiling takes PyTorch a minute or two: not in a short run.
    rivals = [r for r in RIVALS if context.rounds >= 3 or r != 'compile']
    for name in rivals:
        sides[name] = Side([PYTHON, 'bench/rival/inference.py', 'run', exported, name], True)
    found = {case: {name: [] for name in sides} for case in CALLS}
    for turn in range(context.rounds + 1):  # the first is warm-up
        for case, n in CALLS.items():
            for name, side in sides.items():
                if case == 'text77' and name.startswith('tessera'):
                    continue
                times = side.ask(case, n)
                found[case][name] += times if turn else []
    versions = sides['torch'].versions
    for side in sides.values():
        side.close()
    return found, versions


def brief(values):
    return {'calls': len(values), **{k: v for k, v in common.sample(values, 2).items()
                                     if k != 'all'}}


def ratios(found):
    """The rival's median over ours, by case; for text, the rivals' padded and unpadded queries."""
    def of(case, name, other, other_case=None):
        theirs = common.sample(found[other_case or case][other])['median']
        return round(theirs / common.sample(found[case][name], 3)['median'], 2)

    def best_torch(case):
        return min(('torch', 'compile'),
                   key=lambda n: common.sample(found[case].get(n) or [1e9])['median'])
    out = {}
    for name in ('tessera ' + p for p in OURS):
        out[name] = {
            **{case: {'pytorch f32': of(case, name, 'torch'),
                      'pytorch f32, best of eager and compiled': of(case, name, best_torch(case)),
                      'onnxruntime f32': of(case, name, 'ort'),
                      'onnxruntime int8': of(case, name, 'ort-int8')}
               for case in ('picture32', 'picture1')},
            'text16': {'pytorch f32, padded to 77': of('text16', name, 'torch', 'text77'),
                       'onnxruntime f32, 16 tokens': of('text16', name, 'ort'),
                       'onnxruntime f32, padded to 77': of('text16', name, 'ort', 'text77'),
                       'onnxruntime int8, 16 tokens': of('text16', name, 'ort-int8')}}
    return out


def measure_opening(context):
    """`tessera embed --text` with a ViT-L/14, process start included; and a second process."""
    folders, measured = make_model(context, 'clip_l14', ('int8',))
    folder = folders['int8']
    weights = os.path.getsize(folder + '/open_clip_model.safetensors')
    command = [context.tessera, 'embed', '-m', folder, '--text', 'a red car on the street']
    packed = [common.Run(command).seconds for _ in range(2 + 3 * context.rounds)][1:]
    unpacked = [common.Run(command + ['--precision', 'f32']).seconds for _ in range(3)][1:]
    sides = [Side([context.program('inference'), 'run', folder, 'auto'], False) for _ in range(2)]
    for side in sides:
        side.ask('text16', 3)
    first, second = (side.memory() for side in sides)
    for side in sides:
        side.close()
    private = second['Private_Clean'] + second['Private_Dirty']
    return {'model': 'ViT-L/14', 'weights_mb': round(weights / 1e6), 'packed_as': measured['int8'],
            'packed_file_mb': round(os.path.getsize(folder + '/tessera_packed.bin') / 1e6),
            'seconds_packed': common.sample(packed, 3),
            'seconds_from_weights_f32': common.sample(unpacked, 3),
            'resident_mb': round(first['Rss'] / 1e6, 1),
            'second_process_adds_mb': round(private / 1e6, 1),
            'second_process_adds_part': round(private / second['Rss'], 3),
            'second_process_adds_part_of_weights': round(private / weights, 4)}


def bench(context):
    if subprocess.run(['bench/rival/setup'], stdout=subprocess.DEVNULL, check=False).returncode:
        raise SystemExit('bench: the rivals could not be set up; see above')
    folders, measured = make_model(context, 'clip_b32', OURS)
    found, versions = measure_speed(context, folders)
    for case in CALLS:
        common.say(case + ': ' + ', '.join(
            '%s %.1f' % (k, common.sample(v)['median']) for k, v in found[case].items() if v))
    common.write(context, 'inference', {
        'what': 'embedding with CLIP ViT-B/32 shapes, milliseconds a call', 'versions': versions,
        'load_average': common.median_load(), 'packed': measured,
        'ms': {case: {k: brief(v) for k, v in sides.items() if v}
               for case, sides in found.items()},
        'times_as_fast': ratios(found), 'opening': measure_opening(context)})
