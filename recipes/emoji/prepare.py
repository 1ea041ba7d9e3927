#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The emoji recipe: Noto's emoji with their names in Unicode's CLDR, as WebDataset shards.

Pictures are the PNG files inside the font's bitmap strike, untouched (136x128, with alpha).  A
single code point finds its glyph through the character map, a sequence through the ligatures of
the glyph substitution table.  Captions are CLDR's short names (type="tts"), in every locale that
has one of its own: a text with an up arrow only says that the locale inherits its parent's.

    recipes/emoji/prepare.py DIR        see recipes/common.py for what DIR then holds
"""
import argparse
import glob
import os
import sys
import xml.etree.ElementTree as ET

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..'))
import common

FONT = '/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf'
CLDR = '/usr/share/unicode/cldr/common'
PACKAGES = ['fonts-noto-color-emoji', 'unicode-cldr-core', 'sentencepiece', 'python3-fonttools']

# What Debian 12's packages give; other versions may give other counts.
DEBIAN12 = {'fonts-noto-color-emoji': '2.042-0', 'unicode-cldr-core': '41-0'}
EXPECTED = {'pictures': 3635, 'captions': 400984, 'locales': 138}


def read_captions():
    """{characters: {locale: caption}}"""
    captions = {}
    for folder in ('annotations', 'annotationsDerived'):
        for path in sorted(glob.glob('%s/%s/*.xml' % (CLDR, folder))):
            locale = os.path.basename(path)[:-len('.xml')]
            for a in ET.parse(path).getroot().iter('annotation'):
                if a.get('type') == 'tts' and a.text and '↑' not in a.text:
                    captions.setdefault(a.get('cp'), {})[locale] = a.text
    return captions


class Font:
    """The pictures of a font with colour bitmaps (CBDT), by character sequence."""

    def __init__(self, path):
        from fontTools.ttLib import TTFont
        font = TTFont(path)
        self.glyph_of = font.getBestCmap()
        self.bitmaps = font['CBDT'].strikeData[0]
        self.ligatures = {}
        for lookup in font['GSUB'].table.LookupList.Lookup:
            for table in lookup.SubTable:
                table = getattr(table, 'ExtSubTable', table)
                for first, rest in getattr(table, 'ligatures', {}).items():
                    for ligature in rest:
                        self.ligatures[(first, *ligature.Component)] = ligature.LigGlyph

    def picture(self, characters):
        """PNG bytes, or None when the font has no picture for them."""
        glyphs = tuple(self.glyph_of.get(ord(c)) for c in characters)
        glyph = glyphs[0] if len(glyphs) == 1 else self.ligatures.get(glyphs)
        bitmap = self.bitmaps.get(glyph)
        return None if bitmap is None else bytes(bitmap.imageData)


def gather():
    common.say('emoji: reading the names in CLDR')
    captions = read_captions()
    common.say('emoji: reading the pictures in the font')
    font = Font(FONT)
    samples = []
    for characters, texts in sorted(captions.items()):
        picture = font.picture(characters)
        if picture is not None:
            key = '-'.join('%x' % ord(c) for c in characters)
            samples.append(common.Sample(key, picture, texts, {'name': texts.get('en', key)}))
    return samples, {'names_without_picture': len(captions) - len(samples)}


def check(summary):
    found = common.versions(list(DEBIAN12))
    if any(not found[p].startswith(v) for p, v in DEBIAN12.items()):
        common.say('emoji: not the packages of Debian 12, so the counts are not checked')
        return
    for field, count in EXPECTED.items():
        if summary[field] != count:
            sys.exit('emoji: expected %d %s, found %d' % (count, field, summary[field]))


def main():
    parser = argparse.ArgumentParser(description='Makes the emoji data set.')
    common.add_options(parser, vocab=16000, shard_size=512)
    options = parser.parse_args()
    common.need('spm_train', 'sentencepiece')
    summary = common.prepare('emoji', options.out, PACKAGES, [__file__], options, gather)
    check(summary)
    print('emoji: {pictures:,} pictures, {captions:,} captions, {locales} locales; '
          '{train_captions:,} captions to train on, {test_captions:,} held out, of which '
          '{test_captions_new_words:,} have a new word'.format(**summary))


if __name__ == '__main__':
    main()
