# SPDX-License-Identifier: Apache-2.0
"""What the recipes share: the held-out rule, known and new captions, shards, vocabulary, manifest.

A recipe turns a Debian package into a directory:

    <name>-000.tar ...  WebDataset shards, two members a sample: <key>.png and <key>.json
    sizes.json          {shard: samples}
    train_text.txt      every training caption, one a line, as its source has it
    spm.model           a SentencePiece unigram vocabulary of those lines
    languages.json      {locale: {"train", "test", "test_new"}}, captions of each kind
    dataset.json        the totals
    manifest.json       what all this was made from; written last, so it stands for the whole

The same packages and options give the same bytes: members are sorted and carry no time and no
owner, and spm_train runs in the directory itself because it writes its own options into the model.
"""
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
import unicodedata
import zlib

# Token ids that are not pieces of text; then come 256 bytes, for what the alphabet lacks.
PAD_ID, UNK_ID, EOS_ID = 0, 1, 2

# Scripts written without spaces -> the shortest part, in characters, that counts as a word.
# Two characters are a word in Chinese and Japanese; four are about a syllable in the others.
UNSPACED = {'CJK': 2, 'HIRAGANA': 2, 'KATAKANA': 2, 'KATAKANA-HIRAGANA': 2, 'YI': 2,
            'THAI': 4, 'LAO': 4, 'KHMER': 4, 'MYANMAR': 4, 'TIBETAN': 4}

_START = time.monotonic()


def say(text):
    """Progress, on stderr."""
    print('%6.1f s  %s' % (time.monotonic() - _START, text), file=sys.stderr, flush=True)


def held_out(key, locale):
    """True when this picture's caption in this locale is for tests and never trained on."""
    return zlib.crc32(('%s\t%s' % (key, locale)).encode()) % 10 == 0


# ---- known and new -------------------------------------------------------------------------

_script_of = {}


def script(char):
    """First word of the character's Unicode name: LATIN, CYRILLIC, CJK, ..., '' when nameless."""
    if char not in _script_of:
        _script_of[char] = unicodedata.name(char, '').split(' ')[0]
    return _script_of[char]


def words(text):
    """The words between spaces: case folded, punctuation and symbols around them taken off."""
    def outside(char):
        return unicodedata.category(char)[0] in 'PS'

    for word in text.casefold().split():
        start, end = 0, len(word)
        while start < end and outside(word[start]):
            start += 1
        while end > start and outside(word[end - 1]):
            end -= 1
        if start < end:
            yield word[start:end]


def part_length(word):
    """0 for a script with spaces, else the length from which a part of `word` counts."""
    return max((UNSPACED.get(script(c), 0) for c in word), default=0)


class Known:
    """The words and the parts of words in one locale's training captions.

    A caption is known when all its words are.  A word is known when a training caption of the same
    locale has it; where a script has no spaces, also when it can be cut into parts of at least
    `part_length` characters that each stand somewhere in a training caption.
    """

    def __init__(self):
        self.words, self.parts = set(), set()

    def add(self, text):
        for word in words(text):
            if word in self.words:
                continue
            self.words.add(word)
            n = part_length(word)
            # Longer parts divide into parts of n to 2n - 1 characters, so these are enough.
            for length in range(n, 2 * n):
                self.parts.update(word[i:i + length] for i in range(len(word) - length + 1))

    def has_word(self, word):
        if word in self.words:
            return True
        n = part_length(word)
        if n == 0:
            return False
        reach = [True] + [False] * len(word)
        for end in range(n, len(word) + 1):
            reach[end] = any(reach[end - length] and word[end - length:end] in self.parts
                             for length in range(n, min(2 * n - 1, end) + 1))
        return reach[-1]

    def has(self, text):
        return all(self.has_word(word) for word in words(text))


# ---- samples -------------------------------------------------------------------------------

class Sample:
    """A picture (PNG bytes) with its captions, divided by the held-out rule."""

    def __init__(self, key, picture, captions, extra):
        self.key, self.picture, self.extra = key, picture, extra
        self.train = {l: t for l, t in sorted(captions.items()) if not held_out(key, l)}
        self.test = {l: t for l, t in sorted(captions.items()) if held_out(key, l)}
        self.test_new = []

    def json(self):
        fields = {'key': self.key, 'captions': self.train, 'captions_test': self.test,
                  'test_new': self.test_new, **self.extra}
        return json.dumps(fields, ensure_ascii=False, separators=(',', ':')).encode()


def mark_new(samples):
    """Fills test_new: the locales in which the held-out caption has a word never trained on."""
    known = {}
    for sample in samples:
        for locale, text in sample.train.items():
            known.setdefault(locale, Known()).add(text)
    nothing = Known()
    for sample in samples:
        sample.test_new = [l for l, t in sample.test.items() if not known.get(l, nothing).has(t)]


def count_languages(samples):
    languages = {}
    for sample in samples:
        for field, locales in (('train', sample.train), ('test', sample.test),
                               ('test_new', sample.test_new)):
            for locale in locales:
                languages.setdefault(locale, {'train': 0, 'test': 0, 'test_new': 0})[field] += 1
    return dict(sorted(languages.items()))


# ---- writing -------------------------------------------------------------------------------

def write_json(path, value):
    with open(path, 'w', encoding='utf-8') as f:
        json.dump(value, f, ensure_ascii=False, indent=1)
        f.write('\n')


def add_member(tar, name, data):
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o644
    tar.addfile(info, io.BytesIO(data))


def write_shards(out, name, samples, per_shard):
    sizes = {}
    for first in range(0, len(samples), per_shard):
        shard = '%s-%03d.tar' % (name, first // per_shard)
        part = samples[first:first + per_shard]
        with tarfile.open(os.path.join(out, shard), 'w', format=tarfile.USTAR_FORMAT) as tar:
            for sample in part:
                add_member(tar, sample.key + '.png', sample.picture)
                add_member(tar, sample.key + '.json', sample.json())
        sizes[shard] = len(part)
    write_json(os.path.join(out, 'sizes.json'), sizes)
    return sizes


def train_vocabulary(out, n_pieces, coverage):
    """spm.model, from train_text.txt.  Two threads, because sums depend on their number."""
    command = ['spm_train', '--input=train_text.txt', '--model_prefix=spm',
               '--model_type=unigram', '--vocab_size=%d' % n_pieces,
               '--character_coverage=%s' % coverage, '--byte_fallback=true', '--bos_id=-1',
               '--pad_id=%d' % PAD_ID, '--unk_id=%d' % UNK_ID, '--eos_id=%d' % EOS_ID,
               '--num_threads=2']
    done = subprocess.run(command, cwd=out, stderr=subprocess.PIPE, check=False)
    if done.returncode != 0:
        tail = done.stderr.decode('utf-8', 'replace').strip().splitlines()[-3:]
        sys.exit('spm_train failed with status %d: %s' % (done.returncode, ' / '.join(tail)))
    os.remove(os.path.join(out, 'spm.vocab'))


# ---- the whole -----------------------------------------------------------------------------

def versions(packages):
    """{package: version}, from dpkg; stops with one line when a package is missing."""
    query = ['dpkg-query', '-W', '-f', '${Package} ${Version} ${db:Status-Status}\n', *packages]
    lines = subprocess.run(query, capture_output=True, text=True, check=False).stdout.splitlines()
    found = {p: v for p, v, status in (line.split(' ') for line in lines) if status == 'installed'}
    missing = [p for p in packages if p not in found]
    if missing:
        sys.exit('not installed: %s; run script/bootstrap recipe' % ' '.join(missing))
    return found


def file_hash(path):
    with open(path, 'rb') as f:
        return hashlib.sha256(f.read()).hexdigest()


def prepare(name, out, packages, scripts, options, gather):
    """Makes `out`, unless its manifest says that it stands already.

    gather() -> (samples sorted by key, facts for dataset.json); options: vocab, coverage,
    shard_size, force.  Returns dataset.json's content.
    """
    sources = {'recipe': name, 'packages': versions(packages),
               'scripts': {os.path.basename(p): file_hash(p) for p in [__file__, *scripts]},
               'vocab': options.vocab, 'coverage': options.coverage,
               'shard_size': options.shard_size}
    manifest = os.path.join(out, 'manifest.json')
    dataset = os.path.join(out, 'dataset.json')
    if not options.force and stands(manifest, sources):
        say('%s: %s is up to date' % (name, out))
        with open(dataset, encoding='utf-8') as f:
            return json.load(f)

    os.makedirs(out, exist_ok=True)
    clear(out, name)
    samples, facts = gather()
    mark_new(samples)
    languages = count_languages(samples)
    say('%s: writing the shards' % name)
    sizes = write_shards(out, name, samples, options.shard_size)
    with open(os.path.join(out, 'train_text.txt'), 'w', encoding='utf-8') as f:
        f.writelines(text + '\n' for s in samples for text in s.train.values())
    write_json(os.path.join(out, 'languages.json'), languages)
    say('%s: training a vocabulary of %d pieces' % (name, options.vocab))
    train_vocabulary(out, options.vocab, options.coverage)

    total = {field: sum(n[field] for n in languages.values())
             for field in ('train', 'test', 'test_new')}
    summary = {'name': name, 'pictures': len(samples), 'captions': total['train'] + total['test'],
               'train_captions': total['train'], 'test_captions': total['test'],
               'test_captions_new_words': total['test_new'], 'locales': len(languages),
               'shards': list(sizes), 'vocabulary': {'file': 'spm.model', 'pieces': options.vocab,
               'pad_id': PAD_ID, 'unk_id': UNK_ID, 'eos_id': EOS_ID}, **facts}
    write_json(dataset, summary)
    files = sorted(f for f in os.listdir(out) if os.path.isfile(os.path.join(out, f)))
    write_json(manifest + '.part', {'sources': sources, 'files': {
        f: os.path.getsize(os.path.join(out, f)) for f in files}})
    os.rename(manifest + '.part', manifest)
    say('%s: done' % name)
    return summary


def stands(manifest, sources):
    """True when the manifest names these sources and every file still has its size."""
    try:
        with open(manifest, encoding='utf-8') as f:
            stored = json.load(f)
        folder = os.path.dirname(manifest)
        return stored['sources'] == sources and all(
            os.path.getsize(os.path.join(folder, f)) == size for f, size in stored['files'].items())
    except (OSError, ValueError, KeyError):
        return False


def clear(out, name):
    """Removes what an earlier run wrote (the manifest first), and nothing else."""
    ours = re.compile(r'(%s-\d{3,}\.tar|sizes\.json|train_text\.txt|spm\.(model|vocab)|'
                      r'languages\.json|dataset\.json|manifest\.json\.part)' % re.escape(name))
    for file in ['manifest.json'] + [f for f in os.listdir(out) if ours.fullmatch(f)]:
        try:
            os.remove(os.path.join(out, file))
        except FileNotFoundError:
            pass


def add_options(parser, vocab, shard_size):
    parser.add_argument('out', help='the directory to make')
    parser.add_argument('--vocab', type=int, default=vocab, metavar='N',
                        help='pieces in the vocabulary (%(default)s)')
    parser.add_argument('--coverage', type=float, default=0.9995, metavar='F',
                        help='share of characters that get a piece of their own; the others are '
                             'spelled in bytes (%(default)s)')
    parser.add_argument('--shard-size', type=int, default=shard_size, metavar='N',
                        help='samples in a shard (%(default)s)')
    parser.add_argument('--force', action='store_true', help='make it anew even if it stands')


def need(program, package):
    if shutil.which(program) is None:
        sys.exit('%s: not found; install the package %s' % (program, package))
