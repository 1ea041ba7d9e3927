#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The recipes' rules: what is held out, what counts as a new word, which captions are left out, and
that shards are the same bytes every time.  Needs none of the recipes' packages."""
import importlib.util
import os
import sys
import tarfile
import tempfile
import unittest

sys.dont_write_bytecode = True
RECIPES = os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'recipes')
sys.path.insert(0, RECIPES)
import common


def load(recipe):
    spec = importlib.util.spec_from_file_location(recipe, '%s/%s/prepare.py' % (RECIPES, recipe))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


stamps = load('stamps')


class HeldOut(unittest.TestCase):
    def test_rule_is_the_crc_of_key_and_locale(self):
        # The CRC that gzip writes: 3237186730 of "1f639\ten", 4200315376 of "1f600\ten".
        self.assertTrue(common.held_out('1f639', 'en'))
        self.assertFalse(common.held_out('1f600', 'en'))

    def test_sample_divides_its_captions(self):
        texts = {'l%d' % n: 'text %d' % n for n in range(200)}
        sample = common.Sample('k', b'', texts, {})
        self.assertEqual({**sample.train, **sample.test}, texts)
        self.assertFalse(set(sample.train) & set(sample.test))
        self.assertTrue(8 <= len(sample.test) <= 40)


class NewWords(unittest.TestCase):
    def known(self, *captions):
        known = common.Known()
        for caption in captions:
            known.add(caption)
        return known

    def test_words_between_spaces(self):
        known = self.known('Flagge: Japan', 'rotes Herz')
        self.assertTrue(known.has('rotes Japan'))
        self.assertTrue(known.has('„Herz“, ROTES'))
        self.assertFalse(known.has('rote Flagge'))
        self.assertFalse(known.has('Her'))

    def test_scripts_without_spaces_are_cut_into_parts(self):
        chinese = self.known('女性科学家', '消防车')
        self.assertTrue(chinese.has('女性消防'))
        self.assertFalse(chinese.has('女性宇航员'))
        self.assertFalse(chinese.has('车女'))
        self.assertTrue(self.known('T恤衫').has('T恤'))
        thai = self.known('ผู้หญิงวิ่ง')
        self.assertTrue(thai.has('ผู้หญิง'))
        self.assertFalse(thai.has('ยูนิคอร์น'))

    def test_locales_do_not_lend_words_to_each_other(self):
        key = next(k for k in map(str, range(1000))
                   if common.held_out(k, 'aa') and not common.held_out(k, 'bb'))
        samples = [common.Sample(key, b'', {'aa': 'mango', 'bb': 'mango'}, {})]
        common.mark_new(samples)
        self.assertEqual(samples[0].test_new, ['aa'])


class Faults(unittest.TestCase):
    def test_what_is_left_out_and_why(self):
        cases = [
            ('Zwei Bären.', 'de', None),
            ('Fünf Äpfel & Öl — “so”', 'de', None),
            ('A \ufffd dog', 'en', 'replacement'),
            ('B\u0113\u0093d\u012bgs!', 'lv', 'control'),
            ('Zwei Bären.'.encode().decode('cp1252'), 'de', 'double_encoded'),
            ('Äpfel'.encode().decode('latin-1'), 'de', 'control'),
            ('niño'.encode().decode('latin-1'), 'es', 'double_encoded'),
            ('´Õ ¸¢É¢ §¸¡Æ¢', 'ta', 'wrong_script'),
            ('tqhk,vn', 'fa', 'wrong_script'),
            ('A quetzal.', 'km', 'untranslated'),
            ('A', 'ml', None),
            ('VW Beetle.', 'de', None),
            ('கிளி', 'ta', None),
        ]
        for text, locale, expected in cases:
            with self.subTest(text=text):
                self.assertEqual(stamps.fault(text, locale, 'A quetzal.'), expected)

    def test_file_of_captions(self):
        with tempfile.NamedTemporaryFile(suffix='.txt') as f:
            f.write('A dog.\nde.utf8=Ein Hund.\nsr@latin.utf8=Pas.\nfr.utf8=\njunk\n'.encode()
                    + b'es.utf8=Un ni\xf1o.\n')
            f.flush()
            counts = {}
            captions = stamps.read_captions(f.name, counts)
        self.assertEqual(captions, {'en': 'A dog.', 'de': 'Ein Hund.', 'sr_Latn': 'Pas.'})
        self.assertEqual(counts, {'empty': {'fr': 1}, 'not_a_caption': {'': 1},
                                  'not_utf8': {'es': 1}})


class Shards(unittest.TestCase):
    def test_same_bytes_and_layout(self):
        samples = [common.Sample('k%d' % n, b'picture %d' % n, {'en': 'a', 'de': 'ä'}, {'name': 'a'})
                   for n in range(5)]
        contents = []
        for _ in range(2):
            with tempfile.TemporaryDirectory() as out:
                sizes = common.write_shards(out, 'x', samples, 2)
                self.assertEqual(sizes, {'x-000.tar': 2, 'x-001.tar': 2, 'x-002.tar': 1})
                contents.append([common.file_hash(os.path.join(out, f)) for f in sizes])
                with tarfile.open(os.path.join(out, 'x-001.tar')) as tar:
                    self.assertEqual(tar.getnames(), ['k2.png', 'k2.json', 'k3.png', 'k3.json'])
        self.assertEqual(contents[0], contents[1])

    def test_manifest_stands_only_for_what_is_there(self):
        with tempfile.TemporaryDirectory() as out:
            manifest = os.path.join(out, 'manifest.json')
            self.assertFalse(common.stands(manifest, {'a': 1}))
            common.write_json(os.path.join(out, 'f'), [])
            common.write_json(manifest, {'sources': {'a': 1}, 'files': {'f': 3}})
            self.assertTrue(common.stands(manifest, {'a': 1}))
            self.assertFalse(common.stands(manifest, {'a': 2}))
            os.truncate(os.path.join(out, 'f'), 1)
            self.assertFalse(common.stands(manifest, {'a': 1}))


if __name__ == '__main__':
    result = unittest.main(exit=False).result
    bad = len(result.failures) + len(result.errors)
    sys.stderr.flush()
    print('%d passed, %d failed' % (result.testsRun - min(bad, result.testsRun), bad))
    sys.exit(bad > 0)
