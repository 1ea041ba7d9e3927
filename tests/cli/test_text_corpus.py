#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A text-only model from the command line: texts are indexed and found by what they hold; what is
no record is counted and named; a picture is refused."""
import json
import os
import shutil
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
    tiny.check("info", (info["n_rows"], info["n_pictures"], info["n_texts"]) == (4, 0, 4), info)


def packed(work):
    """Packed, the model finds what it finds; the index is that of the model, packed or not."""
    model = f"{work}/packed_model"
    shutil.copytree(MODEL, model)
    done = tiny.run("pack", "-m", model, "--json", limit=120)
    report = json.loads(done.stdout or b"{}")
    tiny.check("pack", done.returncode == 0 and report["tried"][-1]["mode"] == report["mode"] and
               "image_cosine" not in report["tried"][0], done)
    done = tiny.run("pack", "-m", model, "--check", limit=60)
    tiny.check("pack --check", done.returncode == 0, done)
    for precision, model_dir in (("auto", model), ("f32", MODEL)):
        done = tiny.run("search", "-i", f"{work}/index", "-m", model_dir, "--precision", precision,
                        "--text", "red cat", "--json", limit=60)
        hits = json.loads(done.stdout or b'{"results": [{"key": ""}]}')["results"]
        tiny.check(f"packed, {precision}", hits[0]["key"] == "7", done)
    data = f"{work}/corpus.jsonl"
    done = tiny.run("index", "build", "-m", model, "--text", data, "-o", f"{work}/index8", limit=60)
    tiny.check("an index built packed", done.returncode == 0 and b"4 texts" in done.stdout, done)
    done = tiny.run("search", "-i", f"{work}/index8", "-m", MODEL, "--text", "house and garden",
                    "--json", limit=60)
    hits = json.loads(done.stdout or b'{"results": [{"key": ""}]}')["results"]
    tiny.check("and asked unpacked", hits[0]["key"] == "line 10", done)


def mixed(work):
    """Pictures and texts in one index, by a model that embeds both."""
    tiny.run(*tiny.train_args(work, "mixed", "--steps", 1))
    model, out = f"{work}/logs/mixed/model", f"{work}/both"
    data = write(f"{work}/words.jsonl", b'{"key": "w", "text": "red"}\n{"key": "v", "text": "a dot"}\n')
    done = tiny.run("index", "build", "-m", model, "-d", f"{work}/tiny.tar", "--text", data, "-o", out,
                    limit=120)
    tiny.check("both are indexed", done.returncode == 0 and b" pictures" in done.stdout and
               b"; 2 texts\n" in done.stdout, done)
    info = json.loads(tiny.run("index", "info", out, "--json").stdout or b"{}")
    tiny.check("and counted apart", info.get("n_texts") == 2 and info.get("n_pictures", 0) > 2 and
               info["n_rows"] == info["n_pictures"] + 2, info)
    done = tiny.run("search", "-i", out, "--text", "a dot", "--json", "-k", 100, limit=60)
    hits = json.loads(done.stdout or b'{"results": []}')["results"]
    kinds = {hit["kind"] for hit in hits}
    tiny.check("both kinds are found", kinds == {"image", "text"} and hits[0]["key"] == "v", hits[:2])
    same = write(f"{work}/same.jsonl", b'{"key": "%s", "text": "red"}\n' % next(
        h["key"] for h in hits if h["kind"] == "image").encode())
    check_fails("a text with a picture's key", ["this key is already in the index"],
                "index", "build", "-m", model, "-d", f"{work}/tiny.tar", "--text", same, "-o",
                f"{work}/clash")
    tiny.check("nothing is left of it", not os.path.exists(f"{work}/clash"))


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
    packed(work)
    mixed(work)
    tables(work)
    refusals(work)
    tiny.remove(work)
    tiny.finish()


if __name__ == "__main__":
    main()
