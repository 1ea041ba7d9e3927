#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The README's tables are those that script/readme-tables makes of bench/results, and its tables can
be made of results at all."""
import importlib.machinery
import importlib.util
import os
import sys
import unittest

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..')
sys.dont_write_bytecode = True


def load(name, path):
    loader = importlib.machinery.SourceFileLoader(name, os.path.join(ROOT, path))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(name, loader))
    loader.exec_module(module)
    return module


tables = load('readme_tables', 'script/readme-tables')

HEAD = {'machine': {'processor': 'P', 'cores': 2, 'isa': 'avx2', 'tessera': '1', 'memory_gib': 1},
        'date': '2000-01-01', 'commit': 'abc', 'command': 'script/bench x'}
ONE = {'median': 2, 'min': 1, 'max': 3}


def recall(n, at1):
    return {'n': n, 'R@1': at1, 'R@5': at1, 'R@10': at1}


QUALITY = {**HEAD, 'training': {'seconds': 9}, 'text_to_image_mean_over_languages': recall(2, .5),
           'text_to_image_mean_known_words': recall(2, .6),
           'text_to_image_mean_new_words': recall(2, .1),
           'languages': {'%c%c' % (a, b): {'all': recall(50, (a - 96) / 100)}
                         for a in range(97, 102) for b in (97,)}}
TRAIN = {**HEAD, 'best_rival': 'debian bf16', 'ratio': ONE, 'memory_ratio': ONE,
         'tessera': {'pictures_per_s': ONE, 'peak_rss_mib': ONE},
         'pytorch': {'debian bf16': {'version': '1', 'pictures_per_s': ONE, 'peak_rss_mib': ONE}},
         'arithmetic': {'gflops': ONE, 'onednn_bf16_gflops': ONE, 'part_of_onednn_bf16': ONE}}


SENTENCE = {**HEAD, 'best': {'sentence-transformers': 'sentence-transformers bf16',
                             'ONNX Runtime': 'ONNX Runtime int8'},
            'texts_per_s': {'Tessera int8': {**ONE, 'median': 9}, 'Tessera bf16': ONE,
                            'sentence-transformers bf16': ONE, 'ONNX Runtime int8': ONE},
            'times_as_fast': {'Tessera int8': {'sentence-transformers': {**ONE, 'median': 3.25},
                                               'ONNX Runtime': ONE}}}


class Readme(unittest.TestCase):
    def test_it_holds_what_the_generator_gives(self):
        with open(tables.README, encoding='utf-8') as f:
            text = f.read()
        self.assertGreater(len(tables.MARK.findall(text)), 0)
        self.assertEqual(tables.render(text, tables.load()), text, 'run script/readme-tables')

    def test_every_table_from_every_result(self):
        results = {'train': TRAIN, 'quality': QUALITY}
        for name in tables.TABLES:
            frame = '<!-- table %s -->\nold\n<!-- end -->\n' % name
            made = tables.render(frame, results)
            self.assertNotIn('old', made)
            self.assertIn('|', made)
            self.assertEqual(tables.render(made, results), made)

    def test_the_fastest_precision_is_shown(self):
        made = tables.figures({'sentence': SENTENCE})
        self.assertIn('| sentences (int8) beside sentence-transformers bf16 | 9 texts/s | 2 | '
                      '**3.25 x** | 2 x |', made)
        self.assertIn('beside ONNX Runtime int8', made)

    def test_rows_have_one_width(self):
        made = tables.languages({'quality': QUALITY})
        widths = {line.count('|') for line in made.splitlines() if line.startswith('|')}
        self.assertEqual(len(widths), 1)

    def test_best_languages_come_first(self):
        made = tables.languages({'quality': QUALITY})
        self.assertLess(made.index('`ea`'), made.index('`da`'))

    def test_unknown_table_is_an_error(self):
        with self.assertRaises(KeyError):
            tables.render('<!-- table nonsense -->\n<!-- end -->', {})


if __name__ == '__main__':
    result = unittest.main(exit=False).result
    bad = len(result.failures) + len(result.errors)
    sys.stderr.flush()
    print('%d passed, %d failed' % (result.testsRun - min(bad, result.testsRun), bad))
    sys.exit(bad > 0)
