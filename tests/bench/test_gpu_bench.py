#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The GPU benches on the processor, with tiny shapes: our sides, what is made of answers, README's
rows; beside a rival whose answers are canned, and beside PyTorch (half a minute or more, most of
it imports) where RIVAL_PYTHON names a Python that has it, as build/rival/bin/python."""
import importlib.machinery
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import unittest

import numpy as np

ROOT = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..'))
BUILD = os.environ.get('BUILD', os.path.join(ROOT, 'build'))
sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(ROOT, 'bench'))
os.chdir(ROOT)
import gpu_figures  # pylint: disable=wrong-import-position
import gpu_run  # pylint: disable=wrong-import-position

# Stands in for a Python with PyTorch: called as PYTHON bench/rival/gpu.py KIND ARGUMENTS...
RIVAL = r'''#!/usr/bin/python3
import json, sys
import numpy as np
kind, a = sys.argv[2], sys.argv[3:]
print(json.dumps({'torch': 'canned', 'card': 'NVIDIA H200'}), flush=True)
for line in sys.stdin:
    case, n = line.split()
    n = int(n)
    if case == 'rest':
        out = {}
    elif case == 'hits':
        rows, queries = (np.fromfile(a[5] + '/' + f, np.float32).reshape(-1, int(a[2]))
                         for f in ('rows.f32', 'queries.f32'))
        out = np.argsort(-(queries[:n] @ rows.T), 1)[:, :int(a[3])].tolist()
    elif case == 'vectors':
        out = [0.0] * 16
    elif kind == 'search':
        out = {'ms': [8.0] * n}
    elif kind == 'contrast' and case == 'f32':
        out = {'error': 'out of memory: tried'}
    else:
        out = {'ms': 10.0, 'losses': [2.0] * n, 'loss': 1.0, 'workspace_mb': 100.0,
               'pictures': 6 if case == 'jpeg' else 4}
    print(json.dumps(out), flush=True)
'''


def load_tables():
    path = os.path.join(ROOT, 'script', 'readme-tables')
    loader = importlib.machinery.SourceFileLoader('readme_tables', path)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader('readme_tables', loader))
    loader.exec_module(module)
    return module


def program(name, *arguments, lines=''):
    return subprocess.run([os.path.join(BUILD, 'bench', name), *map(str, arguments)], input=lines,
                          capture_output=True, text=True, check=False, timeout=120)


def drive(python, out, *arguments):
    return subprocess.run([sys.executable, 'bench/gpu_run.py', '--device', 'cpu', '--tiny',
                           '--build', BUILD, '--python', python, '--out', out, *arguments],
                          capture_output=True, text=True, check=False, timeout=280)


class Programs(unittest.TestCase):
    def test_usage(self):
        for name in ('gpu_train', 'gpu_contrast', 'gpu_embed', 'gpu_search'):
            for arguments in ([], ['--help'], ['run', 'a', 'f32', 'cpu', 'none', 'b']):
                done = program(name, *arguments)
                self.assertEqual(done.returncode, 2, (name, arguments))
                self.assertIn('usage: ' + name, done.stderr)

    def test_what_is_wrong_is_said(self):
        tiny = 'bench/models/gpu_tiny.json'
        with tempfile.TemporaryDirectory() as work:
            done = program('gpu_train', 'run', tiny, 'fp4', 'cpu', 8, work)
            self.assertEqual(done.returncode, 3)
            self.assertIn('not in "fp4"', done.stderr)
            done = program('gpu_train', 'run', tiny, 'f32', 'cpu', 8, work)
            self.assertEqual(done.returncode, 1)
            self.assertIn(work + '/pictures.u8', done.stderr)
            with open(work + '/features.f32', 'wb') as f:
                f.write(bytes(100))
            done = program('gpu_contrast', 'cpu', 4, 8, work)
            self.assertEqual(done.returncode, 1)
            self.assertIn('expected 256 bytes at least, found 100', done.stderr)
            with open(work + '/features.f32', 'ab') as f:
                f.write(bytes(156))
            done = program('gpu_contrast', 'cpu', 4, 8, work, lines='embed 1\n')
            self.assertEqual(done.returncode, 1)
            self.assertIn('no case is called embed', done.stderr)

    def test_a_loss_by_hand(self):
        """Two pairs of orthogonal rows: log(1 + exp(-s)), s = exp(2.6592)."""
        with tempfile.TemporaryDirectory() as work:
            np.tile(np.eye(2, 4, dtype=np.float32), (2, 1)).tofile(work + '/features.f32')
            done = program('gpu_contrast', 'cpu', 2, 4, work, lines='contrast 2\n')
            answer = json.loads(done.stdout.splitlines()[1])
            self.assertAlmostEqual(answer['loss'], np.log1p(np.exp(-np.exp(2.6592))), 6)


class Driver(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.work = tempfile.TemporaryDirectory()
        cls.rival = os.path.join(cls.work.name, 'python')
        with open(cls.rival, 'w', encoding='utf-8') as f:
            f.write(RIVAL)
        os.chmod(cls.rival, 0o755)
        report = os.path.join(cls.work.name, 'report.json')
        cls.done = drive(cls.rival, cls.work.name + '/out', '--report', report)
        with open(report, encoding='utf-8') as f:
            cls.report = json.load(f)
        cls.found = {}
        for name in cls.report:
            with open(f'{cls.work.name}/out/gpu_{name}.json', encoding='utf-8') as f:
                cls.found['gpu_' + name] = json.load(f)

    @classmethod
    def tearDownClass(cls):
        cls.work.cleanup()

    def test_all_are_measured(self):
        self.assertEqual(self.report, dict.fromkeys(gpu_run.BENCHES, 'measured'), self.done.stderr)
        self.assertEqual(self.done.returncode, 0)

    def test_training(self):
        one = self.found['gpu_train']['models']['gpu_tiny']
        self.assertEqual(set(one['sides']), {'tessera bf16', 'tessera bf16, without padding',
                                             'pytorch eager'})
        self.assertEqual(one['sides']['pytorch eager']['pictures_per_s']['median'], 800)
        self.assertEqual(len(one['curves']['full']['tessera']), 3)
        self.assertIn('fp8', one['left_out'][0])
        self.assertNotIn('fp8', one)

    def test_embedding(self):
        jpeg = self.found['gpu_embed']['jpeg']
        self.assertEqual(jpeg['pictures_a_call'], 6)
        self.assertEqual(jpeg['pictures_per_s']['pytorch']['median'], 600)

    def test_search(self):
        self.assertEqual(self.found['gpu_search']['hits_of_both'], 1)

    def test_contrast(self):
        found = self.found['gpu_contrast']
        self.assertNotIn('pytorch f32', found['ms'])
        self.assertIn('out of memory', found['left_out'][0])
        self.assertGreater(found['times_the_memory']['pytorch bf16'], 100)

    def test_readme_rows(self):
        tables = load_tables()
        found = {k: {**v, 'machine': {**v['machine'], 'card': 'NVIDIA Test', 'driver': '580'}}
                 for k, v in self.found.items()}
        found['gpu_tests'] = {**found['gpu_train'], 'stages': {'a': {'ok': True}, 'b': {'ok': False}}}
        made = tables.figures(found)
        for text in ('train gpu_tiny on a GPU (bf16) beside PyTorch eager', '| 800 |', '1 of 2',
                     'JPEG to vector on a GPU', 'beside torch.matmul and topk in f32 |',
                     'NVIDIA Test (driver 580)', 'its memory beside PyTorch'):
            self.assertIn(text, made)
        self.assertEqual(len({line.count('|') for line in made.splitlines() if line[:1] == '|'}), 1)

    def test_a_rival_that_ends(self):
        out = self.work.name + '/none'
        done = drive('/bin/false', out, 'search')
        self.assertEqual(done.returncode, 1)
        self.assertIn('pytorch ended with exit status 1', done.stderr)
        self.assertFalse(os.path.exists(out))

    def test_no_time(self):
        done = drive(self.rival, self.work.name + '/late', '--until', '1', 'search')
        self.assertEqual(done.returncode, 1)
        self.assertFalse(os.path.exists(self.work.name + '/late'))

    def test_arguments(self):
        for arguments, text in ((['nonsense'], 'no bench nonsense'),
                                (['--models', 'gpu_x'], '--models: expected some of: gpu_tiny')):
            done = drive(self.rival, self.work.name, *arguments)
            self.assertEqual(done.returncode, 2)
            self.assertIn(text, done.stderr)

    def test_no_card(self):
        done = subprocess.run([sys.executable, 'bench/gpu_run.py', '--build', self.work.name,
                               '--out', self.work.name + '/card'], capture_output=True, text=True,
                              check=False, env={**os.environ, 'PATH': self.work.name})
        self.assertEqual(done.returncode, 2)
        self.assertIn('no NVIDIA card is visible', done.stderr)
        self.assertFalse(os.path.exists(self.work.name + '/card'))


class Figures(unittest.TestCase):
    def test_flops(self):
        """docs/cuda.md: products of a step of 1,024 pairs at 790 TFLOP/s take 57 and 682 ms."""
        for model, ms in (('gpu_b32', 57), ('gpu_l14', 682)):
            flops = gpu_figures.step_flops(gpu_run.model_of(model), np.full(1024, 77))
            self.assertAlmostEqual(flops / 790e9 / ms, 1, delta=0.03)
        full, half = (gpu_figures.step_flops(gpu_run.model_of('gpu_b32'), np.full(4, n))
                      for n in (77, 20))
        self.assertLess(half, full)

    def test_part_of_peak(self):
        found = gpu_figures.part_of_peak(1000.0, [2.0, 4.0, 8.0], 989.4)
        self.assertEqual(found['tflops']['median'], 250)
        self.assertEqual(found['part']['median'], 0.253)
        self.assertIsNone(gpu_figures.part_of_peak(1.0, [1.0], None)['part'])
        self.assertEqual(gpu_figures.nominal_tflops('NVIDIA H200'), 989.4)
        self.assertIsNone(gpu_figures.nominal_tflops('another'))

    def test_ratios(self):
        self.assertEqual(gpu_figures.faster([2.0, 4.0, 2.0], [4.0, 4.0, 6.0])['all'], [2, 1, 3])

    def test_curves(self):
        self.assertTrue(gpu_figures.compare_curves([2.0, 1.0], [2.0, 1.005])['agree'])
        self.assertFalse(gpu_figures.compare_curves([2.0, 1.0], [2.0, 1.02])['agree'])

    def test_hits(self):
        self.assertEqual(gpu_figures.agreement([[1, 2], [3, 4]], [[2, 1], [3, 9]]), 0.75)


class Rival(unittest.TestCase):
    """PyTorch itself, on the processor: the same towers, so the same losses."""

    def test_it_computes_the_same(self):
        python = os.environ.get('RIVAL_PYTHON')
        if not python:
            self.skipTest('RIVAL_PYTHON names no Python with PyTorch 2 (bench/rival/setup)')
        with tempfile.TemporaryDirectory() as out:
            done = drive(python, out, 'train', 'search', 'contrast')
            self.assertEqual(done.returncode, 0, done.stderr)
            found = {}
            for name in ('train', 'search', 'contrast'):
                with open(f'{out}/gpu_{name}.json', encoding='utf-8') as f:
                    found[name] = json.load(f)
        for curve in found['train']['models']['gpu_tiny']['curves'].values():
            self.assertTrue(curve['agree'], curve)
        self.assertEqual(found['search']['hits_of_both'], 1)
        losses = found['contrast']['loss']
        self.assertAlmostEqual(losses['tessera'], losses['pytorch f32'], 4)


if __name__ == '__main__':
    result = unittest.main(exit=False, verbosity=1).result
    bad = len(result.failures) + len(result.errors)
    sys.stderr.flush()
    print('%d passed, %d failed' % (result.testsRun - min(bad, result.testsRun)
                                    - len(result.skipped), bad))
    sys.exit(bad > 0)
