#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Our tokenizer beside SentencePiece's own: same model, same captions, one thread, in turn.

    bench/tokenize_spm.py BENCH_TOKENIZE [ROUNDS]

BENCH_TOKENIZE is the program built from bench/tokenize.c.  The captions are the spoken names of
CLDR's annotations (all locales); the models are those of tests/fixtures/text, with the full NFKC
rules.  SentencePiece encodes the whole list in one call, so Python's part in its time is small; the
ids are returned as lists, as a user would get them.  Prints one JSON line per model: captions per
second of each, median over the rounds, and the ratio.
"""
import glob
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET

import sentencepiece as spm

FIXTURES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests/fixtures/text/")
CLDR = "/usr/share/unicode/cldr/common/annotations/*.xml"


def captions():
    return [a.text for path in sorted(glob.glob(CLDR)) for a in ET.parse(path).iter("annotation")
            if a.get("type") == "tts" and a.text and "\u2191" not in a.text]


def main():
    ours, rounds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 5
    lines = captions()
    with tempfile.TemporaryDirectory() as work:
        text = os.path.join(work, "captions.txt")
        with open(text, "w") as f:
            f.writelines(line + "\n" for line in lines)
        for name in ("unigram", "unigram_symbols", "bpe", "bpe_symbols"):
            model = os.path.join(work, name + ".model")
            with open(model, "wb") as out:
                for part in (name + ".model", "nmt_nfkc.spec"):
                    with open(FIXTURES + part, "rb") as f:
                        out.write(f.read())
            theirs = spm.SentencePieceProcessor()
            theirs.Load(model)
            a, b = [], []
            for _ in range(rounds):
                run = subprocess.run([ours, model, text, "1"], stdout=subprocess.PIPE, check=True)
                a.append(json.loads(run.stdout)["captions_per_s"])
                start = time.perf_counter()
                theirs.encode(lines, num_threads=1)
                b.append(len(lines) / (time.perf_counter() - start))
            a_median, b_median = statistics.median(a), statistics.median(b)
            print(json.dumps({"model": name + "+nmt_nfkc", "captions": len(lines),
                              "tessera_per_s": round(a_median), "sentencepiece_per_s": round(b_median),
                              "spread": [round(min(a) / a_median, 2), round(max(a) / a_median, 2)],
                              "ratio": round(a_median / b_median, 2),
                              "sentencepiece": spm.__version__}), flush=True)


if __name__ == "__main__":
    main()
