#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The whole path through the program: train, eval, index, search, serve, embed, and a model that does
not belong to the index."""
import ast
import json
import os
import shutil
import signal
import struct
import subprocess
import urllib.error
import urllib.request

import tiny


def result(what, *args):
    """The JSON that a verb prints; {} when it failed."""
    done = tiny.run(*args, "--json")
    good = tiny.check(f"{what}: succeeds", done.returncode == 0, done.stderr)
    return json.loads(done.stdout) if good else {}


def first_key(found):
    return found["results"][0]["key"] if found.get("results") else None


def read_npy(path):
    """Rows of a two-dimensional float32 array in NumPy's format 1.0."""
    with open(path, "rb") as f:
        data = f.read()
    size = struct.unpack_from("<H", data, 8)[0]
    head = ast.literal_eval(data[10:10 + size].decode())
    assert data[:8] == b"\x93NUMPY\1\0" and (10 + size) % 64 == 0
    assert head["descr"] == "<f4" and not head["fortran_order"]
    n, width = head["shape"]
    flat = struct.unpack_from(f"<{n * width}f", data, 10 + size)
    assert len(data) == 10 + size + 4 * n * width
    return [flat[i * width:(i + 1) * width] for i in range(n)]


def close(a, b, tolerance):
    return len(a) == len(b) and all(abs(x - y) <= tolerance for x, y in zip(a, b))


def train_and_eval(work):
    trained = tiny.run(*tiny.train_args(work, "run", "--steps", 0, "--epochs", 40,
                                        "--captions-per-image", 3, "--save-frequency", 40,
                                        "--warmup", 10))
    if not tiny.check("train", trained.returncode == 0, trained.stderr):
        tiny.finish()
    found = result("eval", "eval", "--model", f"{work}/logs/run/model", "--val-data",
                   f"{work}/tiny.tar", "--val-caption-key", "captions", "--min-captions", 1)
    tiny.check("eval: every picture is found", found["text_to_image"]["R@1"] == 1.0, found)
    tiny.check("eval: languages", sorted(found["languages"]) == ["de", "en", "ru"], found)


def index_and_search(work):
    model, index = f"{work}/logs/run/model", f"{work}/index"
    built = result("index build", "index", "build", "--model", model, "--data", f"{work}/tiny.tar",
                   "--out", index)
    tiny.check("index build: all pictures", built["rows"] == 40 and built["left_out"] == 0, built)
    info = result("index info", "index", "info", index)
    tiny.check("index info", str(40) in json.dumps(info), info)
    for key in ("003", "017", "039"):
        with open(f"{work}/pictures/{key}.json", encoding="utf-8") as f:
            captions = json.load(f)["captions"]
        picture = f"{work}/pictures/{key}.png"
        for language, text in captions.items():
            found = result(f"search {language}", "search", "--index", index, "--text", text)
            tiny.check(f"text in {language} finds {key}", first_key(found) == key, found)
            tiny.check("with its captions", found["results"][0]["captions"] == captions, found)
        found = result("search by picture", "search", "-i", index, "--image", picture, "-k", 1)
        tiny.check(f"the picture finds {key}", first_key(found) == key, found)
        tiny.check("with a score of 1", found["results"][0]["score"] > 0.999, found)
        both = ["search", "-i", index, "--image", picture, "--text", captions["de"]]
        tiny.check("both find it", first_key(result("search by both", *both)) == key)
        only = result("weights", *both[:-1], "something else", "--text-weight", 0)
        tiny.check("a weight of 0 takes the words away", first_key(only) == key)
        where = only["results"][0]
        with open(where["path"], "rb") as shard, open(picture, "rb") as f:
            shard.seek(where["offset"])
            tiny.check("path and offset lead to the picture's bytes",
                       shard.read(where["bytes"]) == f.read(), where)


def post(port, path, body, kind):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body,
                                     {"Content-Type": kind} if body else {})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.status, answer.read()


def serve(work):
    with open(f"{work}/pictures/021.json", encoding="utf-8") as f:
        text = json.load(f)["captions"]["ru"]
    with open(f"{work}/pictures/021.png", "rb") as f:
        picture = f.read()
    with subprocess.Popen([tiny.TESSERA, "serve", f"{work}/index", "--port", "0", "--json"],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          env=tiny.environment()) as child:
        try:
            port = json.loads(child.stdout.readline())["port"]
            tiny.check("healthz", post(port, "/healthz", None, "")[0] == 200)
            tiny.check("the page", b"<html" in post(port, "/", None, "")[1])
            answer = post(port, "/v1/search", json.dumps({"text": text, "k": 3}).encode(),
                          "application/json")[1]
            tiny.check("a text", first_key(json.loads(answer)) == "021", answer)
            form = (b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n'
                    b"Content-Type: image/png\r\n\r\n" + picture + b"\r\n--x--\r\n")
            answer = post(port, "/v1/search", form, "multipart/form-data; boundary=x")[1]
            tiny.check("a picture", first_key(json.loads(answer)) == "021", answer)
            try:
                status = post(port, "/v1/search", b"{", "application/json")[0]
            except urllib.error.HTTPError as e:
                status = e.code
            tiny.check("a bad request", status == 400, status)
        finally:
            child.send_signal(signal.SIGTERM)
            error = child.communicate(timeout=30)[1]
        tiny.check("serve: ends when told", child.returncode in (0, 130), error)


def embed(work):
    model = f"{work}/logs/run/model"
    done = result("embed", "embed", "--model", model, "--data", f"{work}/tiny.tar", "--out",
                  f"{work}/vectors")
    tiny.check("embed: all pictures", done["vectors"] == 40, done)
    rows = read_npy(f"{work}/vectors/img_emb/img_emb_0.npy")
    with open(f"{work}/vectors/metadata/metadata_0.jsonl", encoding="utf-8") as f:
        keys = [json.loads(line)["key"] for line in f]
    tiny.check("embed: a row for a vector", len(keys) == len(rows) == 40)
    tiny.check("embed: unit vectors", all(abs(sum(x * x for x in r) - 1) < 1e-4 for r in rows))
    for key in ("000", "039"):
        one = result("embed one", "embed", "--model", model, "--image",
                     f"{work}/pictures/{key}.png")
        # bf16 activations in batches of another size: the same to 8 bits
        tiny.check("embed: the same vector alone", close(one, rows[keys.index(key)], 0.02))


def moved_together(work):
    """An index and its model in one folder stay together when the folder moves."""
    old, new = f"{work}/before", f"{work}/after"
    os.mkdir(old)
    shutil.copytree(f"{work}/logs/run/model", f"{old}/model")
    result("index build beside its model", "index", "build", "--model", f"{old}/model", "--data",
           f"{work}/tiny.tar", "--out", f"{old}/index")
    os.rename(old, new)
    found = result("search after the move", "search", "-i", f"{new}/index", "--text", "red", "-k", 1)
    tiny.check("search after the move: one result", len(found["results"]) == 1, found)


def another_model(work):
    other = tiny.run(*tiny.train_args(work, "other", "--seed", 2))
    tiny.check("train another", other.returncode == 0, other.stderr)
    refused = tiny.run("search", "-i", f"{work}/index", "--model", f"{work}/logs/other/model",
                       "--text", "x")
    tiny.check("a model that does not match is refused", not tiny.complaint(refused),
               tiny.complaint(refused))
    tiny.check("by its fingerprint", b"was built with the model" in refused.stderr, refused.stderr)
    refused = tiny.run("serve", f"{work}/index", "--model", f"{work}/logs/other/model", "-p", 0)
    tiny.check("nor served", not tiny.complaint(refused), tiny.complaint(refused))
    weights = f"{work}/logs/other/model/open_clip_model.safetensors"
    with open(weights, "r+b") as f:
        f.seek(os.path.getsize(weights) - 100)
        f.write(b"\0" * 50)
    refused = tiny.run("embed", "--model", f"{work}/logs/other/model", "--text", "x")
    tiny.check("changed weights are refused", b"fingerprint" in refused.stderr, refused.stderr)


def main():
    work = tiny.work_dir()
    train_and_eval(work)
    index_and_search(work)
    serve(work)
    embed(work)
    moved_together(work)
    another_model(work)
    tiny.remove(work)
    tiny.finish()


main()
