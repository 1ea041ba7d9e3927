#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What the demo found, as tables on the terminal and as one self-contained page.

    report.py training SECONDS RUN COMMAND...   prints JSON: how the model was trained
    report.py recall DIR                prints the table of recall, language by language
    report.py queries                   the queries, one "number<TAB>text" a line
    report.py picture DATA OUT.jpg      the picture query: a known picture mirrored, made smaller,
                                        put on a coloured ground and compressed as JPEG
    report.py write DIR                 prints what was found and writes DIR/report.html

DIR holds data/ (what prepare.py made), eval.json (`tessera eval --json`), training.json,
queries/NN.json and queries/picture.json (`tessera search --json`), and queries/picture.jpg.
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
:root { color-scheme: light dark; --line: light-dark(#d9dde3, #3a3f47); --card: light-dark(#fff, #1d2025);
  --ground: light-dark(#f5f6f8, #14161a); --soft: light-dark(#5b6470, #9aa3af);
  --meant: light-dark(#1f8a4c, #4cc982); }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, "Noto Sans", sans-serif; margin: 0; background: var(--ground); }
main { max-width: 72rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .4rem; }
.lead { color: var(--soft); max-width: 46rem; margin: 0 0 1.4rem; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .75rem;
  margin: 0 0 2rem; }
.facts div, section { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; }
.facts div { padding: .7rem .9rem; }
.facts dd { font-size: 1.45rem; font-weight: 650; margin: 0; font-variant-numeric: tabular-nums; }
.facts dt { color: var(--soft); font-size: .8rem; }
section { padding: .9rem 1.1rem 1rem; margin: 0 0 .9rem; }
h2 { font-size: 1.15rem; margin: 0; display: flex; flex-wrap: wrap; align-items: center; gap: .2rem .8rem; }
h2 small { color: var(--soft); font-weight: 400; font-size: .85rem; margin-inline-start: auto; }
h2 img { border-radius: .3rem; }
ol { display: grid; grid-template-columns: repeat(auto-fill, minmax(7.2rem, 1fr)); gap: .6rem;
  list-style: none; padding: 0; margin: .8rem 0 0; }
li { text-align: center; padding: .55rem .4rem .4rem; border-radius: .5rem; border: 2px solid transparent;
  background: var(--ground); }
li.meant { border-color: var(--meant); }
li img { width: 68px; height: 64px; }
li span { display: block; font-size: .75rem; line-height: 1.3; overflow-wrap: anywhere; }
li span.score { color: var(--soft); font-variant-numeric: tabular-nums; }
table { border-collapse: collapse; font-size: .82rem; font-variant-numeric: tabular-nums; }
th, td { padding: .12rem .6rem; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
th { color: var(--soft); font-weight: 500; position: sticky; top: 0; background: var(--card); }
tr.mean td { font-weight: 650; border-bottom: 1px solid var(--line); }
td.bar { padding: 0 .6rem; width: 14rem; text-align: left; }
td.bar i { display: block; height: .55rem; border-radius: .2rem; background: #3b82c4; }
.scroll { overflow: auto; max-height: 30rem; margin-top: .6rem; }
code { font-size: .82rem; overflow-wrap: anywhere; }
</style></head><body><main>
<h1>Pictures found by words, in %(languages)d languages</h1>
<p class="lead">%(data)s One model, trained from nothing in %(seconds)s seconds on this machine's
processor; no query below is a caption it was trained on. A green frame marks the picture that was
meant.</p>
<dl class="facts">%(facts)s</dl>
%(sections)s
<section><h2>Recall of held-out captions <small>every caption searches all pictures; mean over
languages with at least %(min_captions)d captions</small></h2><div class="scroll">%(recall)s</div></section>
<section><h2>How it was trained</h2><p><code>%(command)s</code></p></section>
</main></body></html>
'''

MIN_CAPTIONS = 50


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
                     '<span class="score">%.3f</span></li>'
                     % (' class="meant"' if hit['key'] == meant else '', picture,
                        html.escape(data.names[hit['key']]), hit['score']))
    return '<ol>%s</ol>' % ''.join(items)


# ---- recall --------------------------------------------------------------------------------

def summary_of(result):
    """[(what, value)]: the figures that matter."""
    mean = result['text_to_image_mean_over_languages']
    return [('R@1, mean over languages', mean['R@1']), ('R@10, mean over languages', mean['R@10']),
            ('R@1, captions of known words', result['text_to_image_mean_known_words']['R@1']),
            ('R@1, captions with a new word', result['text_to_image_mean_new_words']['R@1'])]


def recall_rows(result):
    """[(language, captions, R@1, R@5, R@10, R@1 of known, R@1 of new)], best first; None: no such
    captions."""
    rows = []
    for language, of in result['languages'].items():
        known, new = (of[k]['R@1'] if of[k]['n'] else None for k in ('known_words', 'new_words'))
        rows.append((language, of['all']['n'], of['all']['R@1'], of['all']['R@5'],
                     of['all']['R@10'], known, new))
    return sorted(rows, key=lambda r: (-r[2], r[0]))


def number(value):
    return '-' if value is None else '%.3f' % value


def print_recall(folder):
    result = read_json(os.path.join(folder, 'eval.json'))
    for name, value in summary_of(result):
        print('%-32s %.3f' % (name, value))
    rows = ['%-12s %5d %6s %6s' % (r[0], r[1], number(r[2]), number(r[4]))
            for r in recall_rows(result) if r[1] >= MIN_CAPTIONS]
    height = -(-len(rows) // 3)
    print('\n' + '   '.join(['%-12s %5s %6s %6s' % ('language', 'n', 'R@1', 'R@10')] * 3))
    for i in range(height):
        print('   '.join(rows[i::height]))
    print('Languages with fewer than %d held-out captions are not shown.' % MIN_CAPTIONS)


def recall_html(result):
    mean = result['text_to_image_mean_over_languages']
    known, new = (result['text_to_image_mean_%s_words' % k]['R@1'] for k in ('known', 'new'))
    rows = [('mean', mean['n'], mean['R@1'], mean['R@5'], mean['R@10'], known, new)]
    rows += [r for r in recall_rows(result) if r[1] >= MIN_CAPTIONS]
    lines = ['<tr><th>language</th><th>captions</th><th>R@1</th><th></th><th>R@5</th><th>R@10</th>'
             '<th>R@1, known words</th><th>R@1, a new word</th></tr>']
    for i, row in enumerate(rows):
        count = '%d languages' % row[1] if i == 0 else '%d' % row[1]
        lines.append('<tr%s><td>%s</td><td>%s</td><td>%s</td><td class="bar">'
                     '<i style="width:%.1f%%"></i></td>%s</tr>'
                     % (' class="mean"' if i == 0 else '', html.escape(row[0]), count,
                        number(row[2]), 100 * row[2],
                        ''.join('<td>%s</td>' % number(v) for v in row[3:])))
    return '<table>%s</table>' % ''.join(lines)


def print_training(seconds, run, command):
    """As JSON: the command, the seconds it was given, the steps they sufficed for, and the last line
    of its metrics."""
    with open(os.path.join(run, 'checkpoints', 'results.jsonl'), encoding='utf-8') as f:
        steps = json.loads(f.readlines()[-1])['step']
    with open(os.path.join(run, 'metrics.jsonl'), encoding='utf-8') as f:
        last = json.loads(f.readlines()[-1])
    json.dump({'seconds': int(seconds), 'command': ' '.join(command), 'steps': steps,
               'epochs': last['epoch'], 'loss': last['train/loss'],
               'pictures_per_s': round(last['train/samples_per_second'], 1)}, sys.stdout, indent=1)
    print()


# ---- the page ------------------------------------------------------------------------------

def write(folder):
    data = Data(os.path.join(folder, 'data'))
    queries, sections = read_queries(), []
    found = 0
    print('%s %s %s %s' % (cell('language', 10), cell('query', 34), cell('rank', 5), 'found'))
    for number, (locale, language, text, meaning, meant) in enumerate(queries):
        hits = read_json(os.path.join(folder, 'queries', '%02d.json' % number))['results']
        rank = rank_of(meant, hits)
        found += rank is not None
        names = '; '.join(data.names[hit['key']] for hit in hits[:3])
        print('%s %s %s %s' % (cell(language, 10), cell(text, 34), cell(str(rank or '-'), 5), names))
        if text.casefold() in data.trained:
            print('          (this query is a training caption in these packages)')
        sections.append('<section><h2><bdi lang="%s">%s</bdi><small>%s: %s</small></h2>%s</section>'
                        % (locale.replace('_', '-'), html.escape(text), html.escape(language),
                           html.escape(meaning), show_hits(data, hits, meant)))

    hits = read_json(os.path.join(folder, 'queries', 'picture.json'))['results']
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

    result, training = (read_json(os.path.join(folder, n)) for n in ('eval.json', 'training.json'))
    about = '{pictures:,} pictures, {train_captions:,} captions in {locales} locales.'
    facts = [(name, '%.3f' % value) for name, value in summary_of(result)]
    facts.append(('queries whose picture is in the first %d' % len(hits),
                  '%d of %d' % (found, len(queries))))
    page = PAGE % {'languages': len({q[1] for q in queries}), 'sections': '\n'.join(sections),
                   'data': about.format(**data.summary), 'seconds': training['seconds'],
                   'facts': ''.join('<div><dd>%s</dd><dt>%s</dt></div>' % (v, html.escape(n))
                                    for n, v in facts),
                   'min_captions': MIN_CAPTIONS, 'recall': recall_html(result),
                   'command': html.escape(training['command'])}
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
    elif len(arguments) == 2 and arguments[0] == 'recall':
        print_recall(arguments[1])
    elif len(arguments) > 3 and arguments[0] == 'training':
        print_training(arguments[1], arguments[2], arguments[3:])
    elif len(arguments) == 2 and arguments[0] == 'write':
        write(arguments[1])
    else:
        sys.exit(__doc__.strip())


if __name__ == '__main__':
    main()
