#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measures Tessera beside PyTorch on one GPU and writes bench/results/gpu_NAME.json.

    bench/gpu_run.py                     train embed search contrast
    bench/gpu_run.py train --models gpu_l14
    bench/gpu_run.py --device cpu --tiny --python build/rival/bin/python
                                         does it work at all? into BUILD/bench/gpu/results

script/gpu calls it.  All sides are processes that wait (gpu_sides.py); they are asked in turn, so
that clocks and heat fall on all of them.  PyTorch's are started first and compile while --built and
--go, files that script/gpu makes, are not there yet.  What cannot be measured is left out and named
in --report; after --until (seconds since 1970) no bench is begun.
"""
import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import common
import gpu_figures
import gpu_sides
from gpu_sides import LeftOut, Side

FULL = {'models': {'gpu_b32': 1024, 'gpu_b16': 512, 'gpu_l14': 128}, 'turns': 5, 'steps': 4,
        'curve': 20, 'contrast': (65536, 512), 'embed': ('gpu_b32', 1024), 'jpegs': 8192,
        'search': (1000000, 512, 10), 'queries': (1, 64, 1024),
        'compiled': True}
TINY = {'models': {'gpu_tiny': 8}, 'turns': 2, 'steps': 1, 'curve': 3, 'contrast': (64, 32),
        'embed': ('gpu_tiny', 4), 'jpegs': 6, 'search': (500, 16, 3), 'queries': (1, 4),
        'compiled': False}
WIDE = 1024  # from this width on FP8 is worth a measurement


def config(model):
    return 'bench/models/%s.json' % model


def model_of(name):
    with open(config(name), encoding='utf-8') as f:
        return json.load(f)['model_cfg']


class Bench:
    """A bench has open(), which starts the rivals, and measure(), which gives the result."""

    def __init__(self, options):
        self.o, self.size = options, TINY if options.tiny else FULL
        self.left_out = []

    def folder(self, name):
        return os.path.join(self.o.work, name)

    def ours(self, program, *arguments, name='tessera'):
        path = os.path.join(self.o.build, 'bench', program)
        return Side(name, [path, *map(str, arguments)], self.o.log)

    def rival(self, *arguments):
        command = [self.o.python, 'bench/rival/gpu.py', *map(str, arguments)]
        return Side('pytorch', command, self.o.log)

    def weights(self, model):
        """The seeded weights that both sides start from; once our programs are there."""
        program = os.path.join(self.o.build, 'bench', 'gpu_train')
        return gpu_sides.make(self.o.work, model + '.safetensors', lambda path: subprocess.run(
            [program, 'make', config(model), path], check=True, stdin=subprocess.DEVNULL))

    def weights_path(self, model):
        return os.path.join(self.o.work, model + '.safetensors')

    def try_to(self, side, case, n=1):
        """An answer; None, and a note, where this side cannot."""
        try:
            return side.ask(case, n)
        except LeftOut as e:
            self.left_out.append(str(e))
            common.say('left out: %s' % e)
            return None

    def warm(self, side, cases):
        """Those of the cases that work, after a call or three of each."""
        found = [case for case in cases if self.try_to(side, case, 3) is not None]
        self.try_to(side, 'rest')
        return found

    def prepare(self):
        """What needs our programs."""


class Train(Bench):
    name, what = 'train', 'training steps of two towers, bf16, milliseconds'

    def open(self):
        self.rivals, self.lengths, self.cases = {}, {}, {}
        for model, batch in self.o.models.items():
            folder = self.folder(model)
            self.lengths[model] = gpu_sides.train_data(folder, model_of(model), batch)
            self.rivals[model] = self.rival('train', config(model), self.weights_path(model),
                                            self.o.device, batch, folder)

    def warm_ups(self):
        modes = ('eager', 'compile') if self.size['compiled'] else ('eager',)

        def one(model):
            self.cases[model] = self.warm(self.rivals[model], [m + '-full' for m in modes])
        return [lambda model=model: one(model) for model in self.rivals]

    def prepare(self):
        for model in self.rivals:
            self.weights(model)

    def curves(self, ours, rival):
        out = {}
        for case in ('full', 'short'):
            mine = ours.ask('start-' + case, self.size['curve'])
            theirs = self.try_to(rival, 'start-eager-' + case, self.size['curve'])
            if theirs:
                out[case] = gpu_figures.compare_curves(mine['losses'], theirs['losses'])
        return out

    def fp8(self, model, batch):
        """bf16 and FP8 in turn, after the rival's turn: all three would not fit the card."""
        arguments = [self.o.device, batch, self.folder(model)]
        sides = {p: self.ours('gpu_train', 'run', config(model), p, *arguments, name='tessera ' + p)
                 for p in ('bf16', 'fp8')}
        found = {}
        if all(self.try_to(side, 'full', 4) for side in sides.values()):
            found = {'tessera ' + p: [] for p in sides}
            for _ in range(self.size['turns']):
                for p, side in sides.items():
                    found['tessera ' + p].append(side.ask('full', self.size['steps'])['ms'])
        for side in sides.values():
            side.close()
        return found

    def one(self, model, batch):
        rival, turns = self.rivals[model].ready(), self.size['turns']
        ours = self.ours('gpu_train', 'run', config(model), self.o.precision, self.o.device, batch,
                         self.folder(model), name='tessera')
        found = {'curves': self.curves(ours, rival), 'ms': {}, 'gflop': {}, 'memory': {},
                 'versions': rival.about}
        sides = {'tessera ' + self.o.precision: (ours, 'full'),
                 'tessera %s, without padding' % self.o.precision: (ours, 'short')}
        sides.update({'pytorch ' + case.split('-')[0]: (rival, case) for case in self.cases[model]})
        for turn in range(turns + 1):  # the first is warm-up
            for name, (side, case) in sides.items():
                answer = side.ask(case, self.size['steps'])
                if turn:
                    found['ms'].setdefault(name, []).append(answer['ms'])
                if 'gflop' in answer:
                    found['gflop'][name] = answer['gflop']
                found['memory'][name] = answer.get('workspace_mb', answer.get('peak_mb'))
        ours.close()
        rival.close()
        wide = model_of(model)['vision_cfg']['width'] >= WIDE or self.o.tiny
        found['fp8'] = self.fp8(model, batch) if wide and self.o.fp8 else {}
        found['left_out'] = self.left_out
        return found

    def measure(self):
        out, why = {}, {}
        for model, batch in self.o.models.items():
            self.left_out = []
            try:
                found = self.one(model, batch)
            except LeftOut as e:
                common.say('%s left out: %s' % (model, e))
                why[model] = str(e)
                continue
            out[model] = gpu_figures.training(found, model_of(model), self.lengths[model],
                                              self.rivals[model].about.get('card'))
            common.say('%s: %s' % (model, ', '.join(
                '%s %.1f ms' % (k, v['ms']['median']) for k, v in out[model]['sides'].items())))
        if not out:
            raise LeftOut('; '.join(why.values()))
        return {'models': out, 'left_out': why, 'steps_a_turn': self.size['steps']}


class Contrast(Bench):
    name, what = 'contrast', 'the softmax contrastive loss and its gradients, milliseconds'

    def open(self):
        batch, width = self.size['contrast']
        folder = self.folder('contrast')
        gpu_sides.make(folder, 'features.f32', lambda path: gpu_sides.unit_rows(
            2 * batch, width, 3).tofile(path))
        self.side = self.rival('contrast', self.o.device, batch, width, folder)
        self.modes = []

    def warm_ups(self):
        """None: it fills the card, so it is warmed up alone."""
        return []

    def measure(self):
        batch, width = self.size['contrast']
        modes = ('f32', 'tf32', 'bf16') + (('compile-bf16',) if self.size['compiled'] else ())
        self.modes = self.warm(self.side, modes)
        ours = self.ours('gpu_contrast', self.o.device, batch, width, self.folder('contrast'))
        ours.ask('contrast', 3)
        found, memory, loss = {}, {'tessera': ours.about['workspace_mb']}, {}
        for _ in range(self.size['turns']):
            for name in ('tessera', *self.modes):
                side, case = (ours, 'contrast') if name == 'tessera' else (self.side, name)
                answer = side.ask(case, 2)
                key = name if name == 'tessera' else 'pytorch ' + name
                found.setdefault(key, []).append(answer['ms'])
                loss[key] = answer['loss']
                memory[key] = answer.get('workspace_mb', memory.get(key))
        ours.close()
        self.side.close()
        return {'batch': batch, 'width': width, 'loss': loss, 'versions': self.side.about,
                'left_out': self.left_out, **gpu_figures.contrast(found, memory)}


class Embed(Bench):
    name, what = 'embed', 'pictures to vectors, bf16, pictures a second'

    def open(self):
        model, batch = self.size['embed']
        folder, side = self.folder('embed'), model_of(model)['vision_cfg']['image_size']
        gpu_sides.make(folder, 'pictures.u8', lambda path: gpu_sides.np.random.default_rng(4)
                       .integers(0, 256, (batch, side, side, 3), 'uint8').tofile(path))
        self.side = self.rival('embed', config(model), self.weights_path(model), self.o.device,
                               batch, folder)
        try:
            gpu_sides.jpegs(os.path.join(folder, 'jpeg'), self.size['jpegs'])
            self.has_jpegs = True
        except ImportError as e:
            self.left_out.append('JPEG to vector: %s' % e)
            self.has_jpegs = False
        self.modes = []

    def warm_ups(self):
        modes = ('eager', 'compile') if self.size['compiled'] else ('eager',)
        return [lambda: self.modes.extend(self.warm(self.side, modes))]

    def prepare(self):
        self.weights(self.size['embed'][0])

    def turns_of(self, case, sides):
        """Milliseconds by side; the first call of each warms it up.  A side that cannot is left
        out."""
        sides = {k: v for k, v in sides.items() if self.try_to(*v)}
        found, counts = {k: [] for k in sides}, {}
        for _ in range(self.size['turns']):
            for name, (side, what) in sides.items():
                answer = side.ask(what)
                found[name].append(answer['ms'])
                counts[name] = answer['pictures']
        if len(set(counts.values())) > 1:
            raise LeftOut('%s: the sides read different numbers of pictures: %s' % (case, counts))
        return found, next(iter(counts.values()), 0)

    def measure(self):
        model, batch = self.size['embed']
        ours = self.ours('gpu_embed', config(model), self.o.precision, self.o.device, batch,
                         self.folder('embed'))
        cases = {'pictures': {'tessera': (ours, 'pictures'),
                              **{'pytorch ' + m: (self.side, m) for m in self.modes}}}
        if self.has_jpegs:
            cases['jpeg'] = {'tessera': (ours, 'jpeg'), 'pytorch': (self.side, 'jpeg')}
        found, counts = {}, {}
        for case, sides in cases.items():
            found[case], counts[case] = self.turns_of(case, sides)
        pair = ours.ask('vectors'), self.side.ask('vectors')
        ours.close()
        self.side.close()
        return {'model': model, 'versions': self.side.about, 'left_out': self.left_out,
                'furthest_numbers': round(max(abs(a - b) for a, b in zip(*pair)), 6),
                **gpu_figures.embedding(found, counts)}


class Search(Bench):
    name, what = 'search', 'the best rows by inner product, exactly, milliseconds'

    def open(self):
        n, width, k = self.size['search']
        queries, folder = max(self.size['queries']), self.folder('search')
        gpu_sides.make(folder, 'rows.f32', gpu_sides.write_rows(n, width, 5))
        gpu_sides.make(folder, 'queries.f32', gpu_sides.write_rows(queries, width, 6))
        self.arguments = [self.o.device, n, width, k, queries, folder]
        self.side = self.rival('search', *self.arguments)
        self.modes = {}

    def warm_ups(self):
        def one():
            for n in self.size['queries']:
                self.modes[n] = self.warm(self.side, ['%s-%d' % (m, n)
                                                      for m in ('f32', 'tf32', 'bf16')])
        return [one]

    def measure(self):
        ours, found = self.ours('gpu_search', *self.arguments), {}
        for n in self.size['queries']:
            ours.ask('search%d' % n, 3)
            sides = {'tessera': (ours, 'search%d' % n),
                     **{'pytorch ' + m.split('-')[0]: (self.side, m) for m in self.modes[n]}}
            found[n] = {name: [] for name in sides}
            for _ in range(self.size['turns']):
                for name, (side, case) in sides.items():
                    found[n][name] += side.ask(case, 4)['ms']
        most = min(64, max(self.size['queries']))
        same = gpu_figures.agreement(ours.ask('hits', most), self.side.ask('hits', most))
        ours.close()
        self.side.close()
        n, width, k = self.size['search']
        return {'rows': n, 'width': width, 'k': k, 'versions': self.side.about,
                'left_out': self.left_out, 'hits_of_both': same,
                'queries': gpu_figures.search(found)}


BENCHES = {b.name: b for b in (Train, Embed, Search, Contrast)}


def card():
    """Name, driver and memory of the card, as nvidia-smi says."""
    done = subprocess.run(['nvidia-smi', '--query-gpu=name,driver_version,memory.total',
                           '--format=csv,noheader'], capture_output=True, text=True, check=True)
    name, driver, memory = done.stdout.splitlines()[0].split(', ')
    return {'card': name, 'driver': driver, 'card_memory': memory}


def await_file(path):
    while path and not os.path.exists(path):
        time.sleep(0.2)


def read_options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('names', nargs='*', metavar='NAME', help=' '.join(BENCHES))
    parser.add_argument('--build', default='build')
    parser.add_argument('--device', default='cuda', choices=('cuda', 'cpu'))
    parser.add_argument('--tiny', action='store_true', help='small shapes, seconds, no figures')
    parser.add_argument('--python', default='python3', help='that has PyTorch')
    parser.add_argument('--precision', default='bf16', help='of our sides')
    parser.add_argument('--no-fp8', dest='fp8', action='store_false')
    parser.add_argument('--models', nargs='+', metavar='MODEL', help='for train')
    parser.add_argument('--out', help='bench/results')
    for name in ('built', 'go', 'report'):
        parser.add_argument('--' + name, metavar='FILE')
    parser.add_argument('--until', type=float, default=float('inf'))
    o = parser.parse_args()
    unknown = [n for n in o.names if n not in BENCHES]
    if unknown:
        parser.error('no bench %s; expected some of: %s' % (' '.join(unknown), ' '.join(BENCHES)))
    models = (TINY if o.tiny else FULL)['models']
    if any(m not in models for m in o.models or []):
        parser.error('--models: expected some of: %s' % ' '.join(models))
    o.models = {m: models[m] for m in o.models or models}
    o.work = os.path.join(o.build, 'bench', 'gpu', 'tiny' if o.tiny else '')
    o.out = o.out or (os.path.join(o.build, 'bench', 'gpu', 'results') if o.tiny else
                      'bench/results')
    os.makedirs(o.work, exist_ok=True)
    o.log = os.path.join(o.work, 'sides.log')
    return o


def attempt(report, name, what):
    """what(); why it failed goes to the report."""
    try:
        return what()
    except (LeftOut, OSError, ValueError, subprocess.CalledProcessError) as e:
        report[name] = str(e)
        common.say('%s left out: %s' % (name, e))
        return None


def open_all(benches, report):
    """Starts the rivals and warms them up, two at a time."""
    for bench in benches:
        attempt(report, bench.name, bench.open)
    with ThreadPoolExecutor(2) as pool:
        for bench in benches:
            if bench.name not in report:
                for warm_up in bench.warm_ups():
                    pool.submit(attempt, report, bench.name, warm_up)


def measure_all(o, benches, report):
    context = common.Context(o.build, '', [])
    about = card() if o.device == 'cuda' else {}
    for bench in benches:
        if bench.name in report:
            continue
        if time.time() > o.until:
            report[bench.name] = 'no time was left'
            continue
        common.say('==> ' + bench.name)
        found = attempt(report, bench.name, bench.measure)
        if found:
            common.write(context, 'gpu_' + bench.name, {'what': bench.what, **found}, o.out,
                         os.environ.get('BENCH_COMMAND', 'bench/gpu_run.py ' + bench.name), about)
            report[bench.name] = 'measured'


def main():
    o, report = read_options(), {}
    if o.device == 'cuda':
        try:
            card()
        except (OSError, subprocess.CalledProcessError, ValueError):
            sys.stderr.write('gpu_run.py: no NVIDIA card is visible (nvidia-smi): nothing was run\n')
            return 2
    benches = [BENCHES[name](o) for name in o.names or BENCHES]
    open_all(benches, report)
    await_file(o.built)
    for bench in benches:
        if bench.name not in report:
            attempt(report, bench.name, bench.prepare)
    await_file(o.go)
    measure_all(o, benches, report)
    if o.report:
        with open(o.report, 'w', encoding='utf-8') as f:
            json.dump(report, f)
    return int(any(v != 'measured' for v in report.values()))


if __name__ == '__main__':
    sys.exit(main())
