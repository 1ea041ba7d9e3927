#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""pack, classify and eval --task on other programs' directories as they are: figures against those
computed here from single embeddings."""
import io
import json
import math
import os
import shutil
import sys
import tarfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import tiny  # noqa: E402

FORMATS = os.path.join(tiny.ROOT, "tests/fixtures/formats")
SENTENCE = os.path.join(tiny.ROOT, "tests/fixtures/sentence")
F32 = tiny.environment(TESSERA_ISA="avx2")
FAMILIES = ("openclip_tok_half", "openclip_siglip", "openclip_xlmr_half", "openclip_bert", "hf_clip",
            "hf_siglip_half")
NAMES = ["red cat", "a dog", "the garden", "sun"]
LABELS = [i * 5 % 7 % 4 for i in range(12)]


def embed(model, *args, env=F32):
    done = tiny.run("embed", "--model", model, *args, env=env)
    return json.loads(done.stdout or b"[]")


def dot(a, b):
    return sum(x * y for x, y in zip(a, b))


def cosine(a, b):
    return dot(a, b) / math.sqrt(dot(a, a) * dot(b, b)) if a and len(a) == len(b) else 0


def shard(path, samples):
    os.makedirs(os.path.dirname(path))
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for key, members in samples:
            for suffix, data in members.items():
                info = tarfile.TarInfo(f"{key}.{suffix}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def data_sets(work, pictures):
    """CLIP_benchmark's layout: one with labels, one with captions."""
    data = []
    for path in pictures:
        with open(path, "rb") as f:
            data.append(f.read())
    shard(f"{work}/classes/test/0.tar", [(f"s{i:03d}", {"png": p, "cls": b"%d" % LABELS[i]})
                                         for i, p in enumerate(data)])
    shard(f"{work}/captions/test/0.tar", [(f"s{i:03d}", {"png": p, "txt": NAMES[i].encode()})
                                          for i, p in enumerate(data[:len(NAMES)])])
    for root in ("classes", "captions"):
        with open(f"{work}/{root}/test/nshards.txt", "w", encoding="utf-8") as f:
            f.write("1\n")
    with open(f"{work}/captions/dataset_type.txt", "w", encoding="utf-8") as f:
        f.write("retrieval\n")
    with open(f"{work}/classes/classnames.txt", "w", encoding="utf-8") as f:
        f.write("\n".join(NAMES) + "\n")


def metrics(name, model, task, root, *more):
    done = tiny.run("eval", "--task", task, "--model", model, "--val-data", root, "--json", *more,
                    env=F32)
    if not tiny.check(f"{name}: {task}", done.returncode == 0, done.stderr):
        return {}
    return json.loads(done.stdout.splitlines()[0])["metrics"]


def evaluate(name, work, model, pictures):
    images = [embed(model, "--image", p) for p in pictures]
    texts = [embed(model, "--text", t) for t in NAMES]
    scores = [[dot(x, t) for t in texts] for x in images]
    acc1 = sum(max(range(4), key=lambda c: s[c]) == k for s, k in zip(scores, LABELS)) / 12
    found = metrics(name, model, "zeroshot_classification", f"{work}/classes", "--templates",
                    f"{work}/plain.txt")
    tiny.check(f"{name}: acc1", abs(found.get("acc1", -1) - acc1) < 1e-9, (found, acc1))
    found = metrics(name, model, "zeroshot_retrieval", f"{work}/captions", "--recall-k", "1")
    recall = sum(max(range(4), key=lambda i: scores[i][t]) == t for t in range(4)) / 4
    tiny.check(f"{name}: recall", abs(found.get("image_retrieval_recall@1", -1) - recall) < 1e-9,
               (found, recall))
    done = tiny.run("classify", "-m", model, "-c", f"{work}/names.txt", "-k", 4, "--json",
                    pictures[0], env=F32)
    guesses = json.loads(done.stdout or b"[{}]")[0].get("classes", [])
    tiny.check(f"{name}: classify", len(guesses) == 4 and all(
        abs(g["score"] - scores[0][g["index"]]) < 2e-5 for g in guesses), (done, scores[0]))


def pack(name, model, *what):
    """The copy is packed, whole, and used: with its weights gone the vectors are the same."""
    before = embed(model, *what, "--precision", "f32")
    done = tiny.run("pack", "--model", model)
    tiny.check(f"{name}: packs", done.returncode == 0, done.stderr)
    done = tiny.run("pack", "--model", model, "--check")
    tiny.check(f"{name}: the pack is whole", done.returncode == 0, done.stderr)
    tiny.check(f"{name}: packed vectors", cosine(before, embed(model, *what)) > 0.99)
    done = tiny.run("embed", "--model", model, *what)
    tiny.check(f"{name}: the pack is taken", done.returncode == 0 and not done.stderr, done.stderr)


def main():
    work = tiny.work_dir()
    pictures = [f"{work}/pictures/{i:03d}.png" for i in range(12)]
    data_sets(work, pictures)
    for file, text in (("plain", "{c}\n"), ("names", "\n".join(NAMES) + "\n")):
        with open(f"{work}/{file}.txt", "w", encoding="utf-8") as f:
            f.write(text)
    for name in FAMILIES:
        model = f"{work}/{name}"
        shutil.copytree(f"{FORMATS}/{name}", model)
        evaluate(name, work, model, pictures)
        pack(name, model, "--text", "the red cat sits")
        pack(name, model, "--image", pictures[0])
    for name in ("bert", "xlmr", "st_dense"):
        shutil.copytree(f"{SENTENCE}/{name}", f"{work}/{name}")
        pack(name, f"{work}/{name}", "--text", "the red cat sits")
    for verb, *more in (("classify", "-c", f"{work}/names.txt", pictures[0]),
                        ("eval", "--val-data", f"{work}/tiny.tar"),
                        ("train", "--train-data", f"{work}/tiny.tar", "--logs", f"{work}/logs",
                         "--batch-size", "8", "--steps", "2"),
                        ("eval", "--task", "zeroshot_classification", "--val-data",
                         f"{work}/classes")):
        done = tiny.run(verb, "--model", f"{work}/bert", *more)
        problem = tiny.complaint(done) or (b"has a text tower alone" not in done.stderr and done.stderr)
        tiny.check(f"{verb}: a text-only model is refused", not problem, problem)
    tiny.remove(work)
    tiny.finish()


if __name__ == "__main__":
    main()
