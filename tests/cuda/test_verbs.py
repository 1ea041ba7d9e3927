#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The verbs that embed on the emulated card (build/emulated/tessera) beside the processor: the same
vectors within f32's rounding, the same answers in bf16."""
import json
import os
import shutil
import subprocess
import sys
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "cli"))
import tiny  # pylint: disable=wrong-import-position

EMULATED = os.path.join(tiny.BUILD, "emulated", "tessera")
PICTURES = 6
TOLERANCE = {"f32": 2e-5, "bf16": 0.02}


def run(program, *args):
    tiny.TESSERA = program
    return tiny.run(*args)


def result(what, *args, card=True):
    """The JSON that a verb prints."""
    done = run(EMULATED if card else tiny.BUILD + "/tessera", *args, "--json",
               *(["--device", "cuda"] if card else []))
    good = tiny.check(f"{what}: succeeds", done.returncode == 0, done.stderr)
    return json.loads(done.stdout) if good else None


def close(a, b, tolerance):
    return a and b and len(a) == len(b) and all(abs(x - y) <= tolerance for x, y in zip(a, b))


def embed(work, model):
    for query in (["--text", "picture 003"], ["--image", f"{work}/some/003.png"]):
        here = result("embed", "embed", "-m", model, *query, "--precision", "f32", card=False)
        for precision, tolerance in TOLERANCE.items():
            there = result("embed", "embed", "-m", model, *query, "--precision", precision)
            tiny.check(f"embed {query[0]} {precision}", close(there, here, tolerance), (here, there))


def index(work, model):
    built = result("index build", "index", "build", "-m", model, "-d", f"{work}/some", "-o",
                   f"{work}/index")
    tiny.check("index build: all", built == {"index": f"{work}/index", "rows": PICTURES,
                                             "left_out": 0}, built)
    for card in (True, False):
        found = result("search", "search", "-i", f"{work}/index", "--image",
                       f"{work}/some/004.png", "-k", 1, card=card)
        best = found and found["results"][0]
        tiny.check("search finds it", best and best["key"] == "004" and best["score"] > 0.999, found)


def search_device(work, model):
    """Which side searches is what the log says: a flat index the card, another the processor."""
    graph = result("index build, a graph", "index", "build", "-m", model, "-d", f"{work}/some", "-o",
                   f"{work}/graph", "--index-key", "HNSW4,Flat")
    for name, says in (("index", b"6 vectors are searched on the card"),
                       ("graph", b"/graph is searched by the processor: a card searches an index")):
        done = run(EMULATED, "search", "-i", f"{work}/{name}", "red", "--device", "cuda", "-v")
        tiny.check(f"search says who searches: {name}",
                   graph and done.returncode == 0 and says in done.stderr, done)
    done = run(EMULATED, "search", "-i", f"{work}/index", "red", "--device", "cpu", "-v")
    tiny.check("search on the processor", done.returncode == 0 and b"on the card" not in done.stderr,
               done)


def ask(work, port):
    for text in ("red", "a dog"):
        query = urllib.request.Request(f"http://127.0.0.1:{port}/v1/search",
                                       json.dumps({"text": text, "k": 2}).encode(),
                                       {"Content-Type": "application/json"})
        with urllib.request.urlopen(query, timeout=60) as answer:
            found = json.load(answer)["results"]
        here = result("search", "search", "-i", f"{work}/index", text, "-k", 2, card=False)
        tiny.check("serve answers as search does", found[0]["key"] == here["results"][0]["key"]
                   and abs(found[0]["score"] - here["results"][0]["score"]) < 0.02, (found, here))


def serve(work):
    with subprocess.Popen([EMULATED, "serve", f"{work}/index", "--port", "0", "--json", "--device",
                           "cuda"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          env=tiny.environment()) as child:
        try:
            ask(work, json.loads(child.stdout.readline())["port"])
        finally:
            child.terminate()


def eval_and_classify(work, model):
    classes = f"{work}/classes.txt"
    with open(classes, "w", encoding="utf-8") as f:
        f.write("cat\ndog\nred\n")
    both = [result("classify", "classify", "-m", model, "-c", classes, f"{work}/some/001.png",
                   card=card) for card in (True, False)]
    scores = [{c["class"]: c["score"] for c in answer[0]["classes"]} for answer in both]
    tiny.check("classify", all(abs(scores[0][c] - scores[1][c]) < 0.02 for c in scores[1]), scores)
    both = [result("eval", "eval", "-m", model, "--val-data", f"{work}/some", "--min-captions", 1,
                   "--val-caption-key", "captions", card=card) for card in (True, False)]
    ranks = [x and x["mean_rank"] for x in both]
    tiny.check("eval", ranks[0] and abs(ranks[0] - ranks[1]) < 0.5, ranks)


def main():
    if not os.access(EMULATED, os.X_OK):
        print(f"{EMULATED} is not built\n0 passed, 0 failed")
        return
    work = tiny.work_dir()
    trained = tiny.run(*tiny.train_args(work, "run"))
    if not tiny.check("train", trained.returncode == 0, trained.stderr):
        tiny.finish()
    os.mkdir(f"{work}/some")
    for i in range(PICTURES):
        for suffix in ("png", "json"):
            shutil.copy(f"{work}/pictures/{i:03}.{suffix}", f"{work}/some")
    model = f"{work}/logs/run/model"
    embed(work, model)
    index(work, model)
    search_device(work, model)
    serve(work)
    eval_and_classify(work, model)
    tiny.remove(work)
    tiny.finish()


main()
