#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The Debian packages recipe: every package's description as a text to search by meaning.

    recipes/debian-packages/prepare.py DIR

writes DIR/packages.jsonl, a line {"key": package, "text": "summary\\nlong description"} a package,
sorted by name; of several versions the first in the lists' order counts.  Descriptions come from
apt's lists (Translation-en): the machine's, or where those hold no descriptions, lists that apt-get
update writes to DIR/lists, beside the machine's and without changing them.

The same lists give the same bytes.
"""
import argparse
import glob
import json
import os
import subprocess
import sys

APT_LISTS = '/var/lib/apt/lists'


def say(text):
    print('debian-packages: ' + text, file=sys.stderr, flush=True)


def read_list(path):
    """A list's text, whatever it is compressed with."""
    done = subprocess.run(['/usr/lib/apt/apt-helper', 'cat-file', path], stdout=subprocess.PIPE,
                          check=True)
    return done.stdout.decode('utf-8', 'replace')


def stanzas(text):
    """Each stanza as {field: value}, the lines of a value joined by newlines."""
    for block in text.split('\n\n'):
        fields, name = {}, None
        for line in block.split('\n'):
            if line[:1] in (' ', '\t') and name:
                fields[name] += '\n' + line[1:]
            elif ':' in line:
                name, value = line.split(':', 1)
                fields[name] = value.strip()
        if fields:
            yield fields


def plain(description):
    """Summary and paragraphs: a line ' .' is an empty one; lines that are no list are joined."""
    lines = ['' if x.strip() == '.' else x for x in description.split('\n')]
    out = [lines[0].strip()]
    joinable = False
    for line in lines[1:]:
        if line and joinable and not line.startswith((' ', '*', '-')):
            out[-1] += ' ' + line.strip()
        elif line.strip():
            out.append(line.strip())
        joinable = bool(line.strip())
    return '\n'.join(x for x in out if x)


def find_lists(folder):
    found = sorted(glob.glob(os.path.join(folder, '*_Translation-en*')))
    return [p for p in found if not p.endswith('.diff_Index')]


def update_lists(folder):
    say('the lists of this machine hold no descriptions: apt-get update into %s' % folder)
    os.makedirs(os.path.join(folder, 'partial'), exist_ok=True)
    subprocess.run(['apt-get', 'update', '-qq', '-o', 'Dir::State::Lists=' + os.path.abspath(folder),
                    '-o', 'Acquire::Languages=en'], check=True)


def packages(paths):
    """{package: text}"""
    texts = {}
    for path in paths:
        for fields in stanzas(read_list(path)):
            name, description = fields.get('Package'), fields.get('Description-en')
            if name and description:
                texts.setdefault(name, plain(description))
    return texts


def write(texts, path):
    with open(path + '.part', 'w', encoding='utf-8') as f:
        for name in sorted(texts):
            f.write(json.dumps({'key': name, 'text': texts[name]}, ensure_ascii=False) + '\n')
    os.rename(path + '.part', path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('out', metavar='DIR')
    parser.add_argument('--lists', metavar='DIR', help='apt lists to read instead')
    options = parser.parse_args()
    os.makedirs(options.out, exist_ok=True)
    own = os.path.join(options.out, 'lists')
    paths = find_lists(options.lists or APT_LISTS) or find_lists(own)
    if not paths and not options.lists:
        update_lists(own)
        paths = find_lists(own)
    texts = packages(paths)
    if not texts:
        sys.exit('debian-packages: no descriptions in %s' % (options.lists or APT_LISTS))
    write(texts, os.path.join(options.out, 'packages.jsonl'))
    say('%d packages, %d characters -> %s' % (
        len(texts), sum(map(len, texts.values())), os.path.join(options.out, 'packages.jsonl')))


if __name__ == '__main__':
    main()
