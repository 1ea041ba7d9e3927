#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The stamps recipe: Tux Paint's stamps (drawings and photographs) with their captions.

A stamp is a picture beside a `.txt` file: its first line is English, then lines like
`de.utf8=Ein Hund.`  PNG pictures are kept as they are; an SVG is drawn with 256 pixels on its
longer side, and preferred when a stamp has both, as in Tux Paint.  A picture without captions (a
mirrored variant) and captions without a picture are counted and left out.

So are captions that are not what they say.  Several translators' files went through the wrong
character set on their way; a model would learn such text as a language.  See `fault` for the rules.

    recipes/stamps/prepare.py DIR       see recipes/common.py for what DIR then holds
"""
import argparse
import concurrent.futures
import os
import re
import subprocess
import sys
import unicodedata

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..'))
import common

STAMPS = '/usr/share/tuxpaint/stamps'
PACKAGES = ['tuxpaint-stamps-default', 'librsvg2-bin', 'fonts-dejavu-core', 'sentencepiece']
FONTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'fonts.conf')
SVG_PIXELS = 256

# Locales whose script is not Latin -> that script, as common.script names it.
SCRIPTS = {
    'am': {'ETHIOPIC'}, 'ar': {'ARABIC'}, 'be': {'CYRILLIC'}, 'bg': {'CYRILLIC'}, 'el': {'GREEK'},
    'fa': {'ARABIC'}, 'gu': {'GUJARATI'}, 'he': {'HEBREW'}, 'hi': {'DEVANAGARI'},
    'hy': {'ARMENIAN'}, 'iu': {'CANADIAN'}, 'ja': {'HIRAGANA', 'KATAKANA', 'CJK'},
    'ka': {'GEORGIAN'}, 'km': {'KHMER'}, 'ko': {'HANGUL'}, 'mk': {'CYRILLIC'},
    'ml': {'MALAYALAM'}, 'ru': {'CYRILLIC'}, 'sr': {'CYRILLIC'}, 'ta': {'TAMIL'}, 'th': {'THAI'},
    'uk': {'CYRILLIC'}, 'zh_CN': {'CJK'}, 'zh_TW': {'CJK'},
}
# Tux Paint's names with a modifier -> CLDR's.
LOCALES = {'ca@valencia': 'ca_ES_VALENCIA', 'sr@latin': 'sr_Latn'}

CAPTION = re.compile(r'([a-z]{2,3}(?:_[A-Z]{2})?(?:@[a-z]+)?)\.utf8=(.*)')


def decodes_again(text):
    """True when a run of characters beyond ASCII is UTF-8 that was read as a Western code page."""
    for run in re.findall(r'[^\x00-\x7f]{2,}', text):
        for code_page in ('cp1252', 'latin-1'):
            try:
                run.encode(code_page).decode('utf-8')
                return True
            except UnicodeError:
                pass
    return False


def fault(text, locale, english):
    """Why a caption cannot be trusted, or None.

    replacement      U+FFFD: bytes were lost
    control          control characters: UTF-8 or a code page read as Latin-1
    double_encoded   UTF-8 read as a Western code page and encoded again
    untranslated     the English text under a locale of another script
    wrong_script     no letter of the locale's script, but a word of another: text in an old
                     font's own encoding, or typed on the wrong keyboard
    """
    if '\ufffd' in text:
        return 'replacement'
    if any(unicodedata.category(c) == 'Cc' for c in text):
        return 'control'
    if decodes_again(text):
        return 'double_encoded'
    scripts = SCRIPTS.get(locale)
    if scripts and not any(common.script(c) in scripts for c in text):
        if text == english:
            return 'untranslated'
        if re.search(r'[^\W\d_]{2}', text) or re.search(r'[^\x00-\x7f]', text):
            return 'wrong_script'
    return None


def read_captions(path, counts):
    """{locale: caption} of one .txt file; what is left out is counted by reason and by locale."""
    def leave_out(reason, locale):
        by_locale = counts.setdefault(reason, {})
        by_locale[locale] = by_locale.get(locale, 0) + 1

    captions, english = {}, None
    with open(path, 'rb') as f:
        lines = f.read().split(b'\n')
    for number, line in enumerate(lines):
        try:
            text = line.decode('utf-8').strip()
        except UnicodeDecodeError:
            leave_out('not_utf8', line.split(b'.')[0].decode('ascii', 'replace')[:16])
            continue
        if not text:
            continue
        locale = 'en'
        if number > 0:
            match = CAPTION.fullmatch(text)
            if match is None:
                leave_out('not_a_caption', '')
                continue
            locale, text = match.group(1), match.group(2).strip()
        else:
            english = text
        reason = 'empty' if not text else fault(text, locale, english)
        if reason is not None:
            leave_out(reason, locale)
        else:
            captions[LOCALES.get(locale, locale)] = text
    return captions


def draw(path):
    """An SVG file as PNG bytes."""
    pixels = str(SVG_PIXELS)
    done = subprocess.run(['rsvg-convert', '--keep-aspect-ratio', '--width', pixels, '--height',
                           pixels, '--format', 'png', path], capture_output=True, check=False,
                          env={**os.environ, 'FONTCONFIG_FILE': FONTS})
    if done.returncode != 0:
        sys.exit('rsvg-convert %s: %s' % (path, done.stderr.decode('utf-8', 'replace').strip()))
    return done.stdout


def read_picture(stem, extension):
    if extension == '.svg':
        return draw(stem + '.svg')
    with open(stem + '.png', 'rb') as f:
        return f.read()


def find_stems():
    """{extension: paths without it} of the package's own files: others put stamps there too."""
    files = subprocess.run(['dpkg-query', '-L', PACKAGES[0]], capture_output=True, text=True,
                           check=True).stdout.splitlines()
    stems = {'.png': set(), '.svg': set(), '.txt': set()}
    for stem, extension in map(os.path.splitext, files):
        if stem.startswith(STAMPS) and extension in stems:
            stems[extension].add(stem)
    return stems


def gather():
    common.say('stamps: reading the captions')
    png, svg, txt = find_stems().values()
    left_out, stamps = {}, []
    for stem in sorted(txt & (png | svg)):
        captions = read_captions(stem + '.txt', left_out)
        if captions:
            stamps.append((stem, '.svg' if stem in svg else '.png', captions))
    common.say('stamps: reading and drawing the pictures')
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        pictures = list(pool.map(lambda s: read_picture(s[0], s[1]), stamps))
    samples = []
    for (stem, extension, captions), picture in zip(stamps, pictures):
        path = os.path.relpath(stem, STAMPS)
        samples.append(common.Sample(path.replace('/', '-'), picture, captions,
                                     {'name': captions.get('en', path), 'file': path + extension}))
    samples.sort(key=lambda s: s.key)
    if len({s.key for s in samples}) != len(samples):
        sys.exit('stamps: two pictures have one key')
    return samples, {
        'png_files': len(png), 'svg_files': len(svg), 'caption_files': len(txt),
        'pictures_from_png': sum(e == '.png' for _, e, _ in stamps),
        'pictures_from_svg': sum(e == '.svg' for _, e, _ in stamps),
        'svg_preferred_to_png': len(png & svg & txt),
        'pictures_without_captions': len((png | svg) - txt),
        'captions_without_picture': len(txt - (png | svg)),
        'captions_left_out': {reason: {'total': sum(n.values()), 'locales': n}
                              for reason, n in sorted(left_out.items())}}


def main():
    parser = argparse.ArgumentParser(description='Makes the stamps data set.')
    common.add_options(parser, vocab=8000, shard_size=128)
    options = parser.parse_args()
    common.need('spm_train', 'sentencepiece')
    common.need('rsvg-convert', 'librsvg2-bin')
    s = common.prepare('stamps', options.out, PACKAGES, [__file__, FONTS], options, gather)
    print('stamps: {pictures:,} pictures, {captions:,} captions, {locales} locales; '
          '{train_captions:,} captions to train on, {test_captions:,} held out, of which '
          '{test_captions_new_words:,} have a new word'.format(**s))
    for reason, n in s['captions_left_out'].items():
        print('stamps: left out as %s: %d (%s)' % (reason, n['total'], ', '.join(
            '%s %d' % item for item in sorted(n['locales'].items(), key=lambda i: (-i[1], i[0])))))


if __name__ == '__main__':
    main()
