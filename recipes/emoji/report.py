#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What the demo found, as a table on the terminal and as one self-contained page.

    report.py queries                   the queries, one "number<TAB>text" a line
    report.py picture DATA OUT.jpg      the picture query: a known picture mirrored, made smaller,
                                        put on a coloured ground and compressed as JPEG
    report.py write DIR                 prints the table and writes DIR/report.html

DIR holds data/ (what prepare.py made), queries/NN.json and queries/picture.json (what `tessera
search --json` printed: {"hits": [{"key", "score"}, ...]}, best first), queries/picture.jpg, and
eval.txt (what `tessera eval` printed).
"""
import base64
import html
import io
import json
import os
import sys
import tarfile
import unicodedata

PICTURE_KEY = '1f6b2'  # a bicycle: mirrored, it is still one
SHOWN = 8

PAGE = '''<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Tessera: the emoji demo</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 66rem; margin: 2rem auto; padding: 0 1rem; }
section { border-top: 1px solid #8884; padding: .8rem 0; }
h2 { font-size: 1rem; margin: 0; }
h2 bdi { font-size: 1.25rem; font-weight: 600; margin-inline-end: .8rem; }
small { opacity: .7; font-weight: 400; }
ol { display: flex; flex-wrap: wrap; gap: .6rem; list-style: none; padding: 0; margin: .6rem 0 0; }
li { width: 7rem; text-align: center; padding: .4rem; border-radius: .5rem; border: 2px solid #8882; }
li.meant { border-color: #2a9d55; }
li img { width: 68px; height: 64px; }
li span { display: block; font-size: .75rem; line-height: 1.25; overflow-wrap: anywhere; }
pre { overflow-x: auto; font-size: .8rem; }
</style></head><body>
<h1>Pictures found by words, in %(languages)d languages</h1>
<p>%(data)s One model, trained from nothing; no query below is a caption it was trained on.
A green frame marks the picture that was meant.</p>
%(sections)s
<section><h2>Recall on held-out captions</h2><pre>%(evaluation)s</pre></section>
</body></html>
'''


def read_queries():
    """[(locale, language, text, meaning, key of the picture meant)]"""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'queries.tsv')
    with open(path, encoding='utf-8') as f:
        return [tuple(line.rstrip('\n').split('\t')) for line in f if not line.startswith('#')]


def read_json(path):
    with open(path, encoding='utf-8') as f:
        return json.load(f)


class Data:
    """Pictures by key, with their English names; and every training caption."""

    def __init__(self, folder):
        self.summary = read_json(os.path.join(folder, 'dataset.json'))
        self.pictures, self.names, self.trained = {}, {}, set()
        for shard in self.summary['shards']:
            with tarfile.open(os.path.join(folder, shard)) as tar:
                for member in tar:
                    key, extension = os.path.splitext(member.name)
                    content = tar.extractfile(member).read()
                    if extension == '.png':
                        self.pictures[key] = content
                    else:
                        sample = json.loads(content)
                        self.names[key] = sample['name']
                        self.trained.update(t.casefold() for t in sample['captions'].values())


def write_picture(data, out):
    from PIL import Image, ImageOps
    image = Image.open(io.BytesIO(data.pictures[PICTURE_KEY])).convert('RGBA')
    ground = Image.new('RGBA', image.size, '#f4ead5')
    ground.alpha_composite(image)
    mirrored = ImageOps.mirror(ground.convert('RGB'))
    mirrored.resize((100, 94), Image.BICUBIC).save(out, quality=80)


def width(text):
    """Columns on a terminal."""
    return sum(0 if unicodedata.category(c) in ('Mn', 'Me', 'Cf') else
               2 if unicodedata.east_asian_width(c) in 'WF' else 1 for c in text)


def cell(text, columns):
    while width(text) > columns:
        text = text[:-2] + '…'
    return text + ' ' * (columns - width(text))


def rank_of(key, hits):
    """1 for the best hit; None when the picture is not among them."""
    return next((i + 1 for i, hit in enumerate(hits) if hit['key'] == key), None)


def show_hits(data, hits, meant):
    items = []
    for hit in hits[:SHOWN]:
        picture = base64.b64encode(data.pictures[hit['key']]).decode()
        items.append('<li%s><img alt="" src="data:image/png;base64,%s"><span>%s</span>'
                     '<span><small>%.3f</small></span></li>'
                     % (' class="meant"' if hit['key'] == meant else '', picture,
                        html.escape(data.names[hit['key']]), hit['score']))
    return '<ol>%s</ol>' % ''.join(items)


def write(folder):
    data = Data(os.path.join(folder, 'data'))
    queries, sections = read_queries(), []
    found = 0
    print('%s %s %s %s' % (cell('language', 10), cell('query', 34), cell('rank', 5), 'found'))
    for number, (locale, language, text, meaning, meant) in enumerate(queries):
        hits = read_json(os.path.join(folder, 'queries', '%02d.json' % number))['hits']
        rank = rank_of(meant, hits)
        found += rank is not None
        names = '; '.join(data.names[hit['key']] for hit in hits[:3])
        print('%s %s %s %s' % (cell(language, 10), cell(text, 34), cell(str(rank or '-'), 5), names))
        if text.casefold() in data.trained:
            print('          (this query is a training caption in these packages)')
        sections.append('<section><h2><bdi lang="%s">%s</bdi><small>%s: %s</small></h2>%s</section>'
                        % (locale.replace('_', '-'), html.escape(text), html.escape(language),
                           html.escape(meaning), show_hits(data, hits, meant)))

    hits = read_json(os.path.join(folder, 'queries', 'picture.json'))['hits']
    print('%s %s %s %s' % (cell('picture', 10), cell('a mirrored ' + data.names[PICTURE_KEY], 34),
                           cell(str(rank_of(PICTURE_KEY, hits) or '-'), 5),
                           '; '.join(data.names[hit['key']] for hit in hits[:3])))
    with open(os.path.join(folder, 'queries', 'picture.jpg'), 'rb') as f:
        asked = base64.b64encode(f.read()).decode()
    sections.append('<section><h2><img alt="" src="data:image/jpeg;base64,%s"> <small>a picture: '
                    'mirrored, smaller, on another ground, JPEG</small></h2>%s</section>'
                    % (asked, show_hits(data, hits, PICTURE_KEY)))
    print('%d of %d texts found the picture that was meant among the first %d'
          % (found, len(queries), max(len(hits), 1)))

    with open(os.path.join(folder, 'eval.txt'), encoding='utf-8', errors='replace') as f:
        evaluation = f.read()
    about = '{pictures:,} pictures, {train_captions:,} captions in {locales} locales.'
    page = PAGE % {'languages': len({q[1] for q in queries}), 'sections': '\n'.join(sections),
                   'data': about.format(**data.summary), 'evaluation': html.escape(evaluation)}
    path = os.path.join(folder, 'report.html')
    with open(path + '.part', 'w', encoding='utf-8') as f:
        f.write(page)
    os.rename(path + '.part', path)


def main():
    arguments = sys.argv[1:]
    if arguments == ['queries']:
        for number, query in enumerate(read_queries()):
            print('%02d\t%s' % (number, query[2]))
    elif len(arguments) == 3 and arguments[0] == 'picture':
        write_picture(Data(arguments[1]), arguments[2])
    elif len(arguments) == 2 and arguments[0] == 'write':
        write(arguments[1])
    else:
        sys.exit(__doc__.strip())


if __name__ == '__main__':
    main()
