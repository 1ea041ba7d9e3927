#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A text-only model from the command line: texts are indexed and found by what they hold; what is
no record is counted and named; a picture is refused."""
import json
import os
import struct

import tiny

MODEL = os.path.join(tiny.ROOT, "tests/fixtures/sentence/st_mean")
LINES = [b'{"key": "dog", "text": "a black dog sits"}', b'{"id": 7, "text": "red cat"}', b"",
         b"not json", b'["text"]', b'{"key": "none"}', b'{"key": "blank", "text": "  "}',
         b'{"key": "latin", "text": "caf\xe9"}', b'{"key": "dog", "text": "again"}',
         b'{"text": "house and garden"}',
         b'{"key": "novel", "text": "' + b"the quick brown fox " * 100000 + b'"}']


def write(path, data):
    with open(path, "wb") as f:
        f.write(data)
    return path


def check_fails(what, words, *args):
    done = tiny.run(*args, limit=60)
    missing = [w for w in words if w not in done.stderr.decode(errors="replace")]
    tiny.check(what, done.returncode == 1 and not missing, f"{done.returncode} {missing} {done.stderr}")


def npy_shape(path):
    with open(path, "rb") as f:
        head = f.read(10)
        text = f.read(struct.unpack("<H", head[8:10])[0]).decode()
    return eval(text, {"__builtins__": {}})["shape"]  # a literal that the program wrote


def corpus(work):
    data = write(f"{work}/corpus.jsonl", b"\n".join(LINES) + b"\n")
    build = ["index", "build", "-m", MODEL, "--text", data, "-o", f"{work}/index"]
    done = tiny.run(*build, limit=60)
    out = done.stdout.decode()
    named = ["4 texts", "corpus.jsonl:4:", "corpus.jsonl:5: expected an object", ':6: no "text"',
             ':7: nothing in "text"', ":8:", ":9: the key dog is there twice"]
    missing = [w for w in named if w not in out]
    tiny.check("bad lines are named", done.returncode == 0 and not missing, f"{missing}: {out} {done.stderr}")
    done = tiny.run(*build, "--replace", "--json", limit=60)
    tiny.check("and counted", json.loads(done.stdout) ==
               {"index": f"{work}/index", "rows": 4, "left_out": 6}, done.stdout)
    for words, key in (("a black dog sits", "dog"), ("red cat", "7"), ("house and garden", "line 10")):
        done = tiny.run("search", "-i", f"{work}/index", "--text", words, "--json", limit=60)
        hit = json.loads(done.stdout)["results"][0]
        tiny.check(f"{key} is found", hit["key"] == key and hit["captions"] == words, hit)
        # the texts were embedded behind one prompt of the model, the words behind another
        tiny.check(f"{key}: with prompts", 0.9 < hit["score"] < 0.99, hit)
    info = json.loads(tiny.run("index", "info", f"{work}/index", "--json").stdout)
    tiny.check("info", info["n_rows"] == 4, info)


def tables(work):
    data = write(f"{work}/t.csv", b'name,body\nx,"red cat"\ny,"a, ""b"""\nz\n')
    done = tiny.run("embed", "-m", MODEL, "--texts", data, "--text-key", "body", "--id-key", "name",
                    "-o", f"{work}/vectors", limit=60)
    tiny.check("a table is embedded", done.returncode == 0 and b"2 vectors" in done.stdout, done)
    tiny.check("its vectors", npy_shape(f"{work}/vectors/text_emb/text_emb_0.npy") == (2, 32))
    with open(f"{work}/vectors/metadata/metadata_0.jsonl", encoding="utf-8") as f:
        tiny.check("its keys", [json.loads(x)["key"] for x in f] == ["x", "y"])
    check_fails("no such column", ['no column "text"', "--text-key"], "embed", "-m", MODEL, "--texts",
                data, "-o", f"{work}/vectors")


def refusals(work):
    empty = write(f"{work}/empty.jsonl", b"")
    check_fails("an empty file", ["holds no text that can be used"], "index", "build", "-m", MODEL,
                "--text", empty, "-o", f"{work}/none")
    tiny.check("nothing is left", not os.path.exists(f"{work}/none"))
    check_fails("pictures", ["a text tower alone"], "index", "build", "-m", MODEL, "-d",
                f"{work}/pictures", "-o", f"{work}/none")
    check_fails("a picture as query", ["a text tower alone"], "search", "-i", f"{work}/index",
                "--image", f"{work}/pictures/000.png")
    check_fails("a prompt that is not there", ["has no prompt", "query"], "embed", "-m", MODEL,
                "--text", "x", "--prompt", "poem")


def main():
    work = tiny.work_dir()
    corpus(work)
    tables(work)
    refusals(work)
    tiny.remove(work)
    tiny.finish()


if __name__ == "__main__":
    main()
