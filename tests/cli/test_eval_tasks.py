#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""tessera eval --task: figures on small data sets in every layout, against figures computed here from
single embeddings, and bad input: each is one message, or a counted and named skip."""
import io
import json
import math
import os
import shutil
import struct
import tarfile
import zlib

import tiny

# f32 on one thread: scores computed here differ by rounding alone, far below their distances.
F32 = tiny.environment(TESSERA_ISA="avx2")
KEYS = {"dataset", "model", "pretrained", "task", "metrics", "language"}
NAMES = ["red things", "a cat", "собака", "snow", "two words", "a boat"]
TEMPLATES = ["{c}", "a picture of {c}."]


def write(path, data):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as f:
        f.write(data if isinstance(data, bytes) else data.encode())
    return path


def read(path):
    with open(path, "rb") as f:
        return f.read()


def shard(path, samples):
    """samples: (key, {suffix: bytes or text})."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for key, members in samples:
            for suffix, data in members.items():
                data = data if isinstance(data, bytes) else data.encode()
                info = tarfile.TarInfo(f"{key}.{suffix}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


# ---- embeddings and figures of our own ----

class Model:
    """A model's vectors, one call each, kept."""

    def __init__(self, path):
        self.path, self.known = path, {}

    def vector(self, kind, what):
        if (kind, what) not in self.known:
            done = tiny.run("embed", "--model", self.path, kind, what, env=F32)
            self.known[kind, what] = json.loads(done.stdout)
        return self.known[kind, what]

    def class_vector(self, name, templates):
        rows = [self.vector("--text", t.replace("{c}", name)) for t in templates]
        mean = [sum(column) / len(rows) for column in zip(*rows)]
        size = math.sqrt(sum(x * x for x in mean))
        return [x / size for x in mean]


def dot(a, b):
    return sum(x * y for x, y in zip(a, b))


def best(scores, k):
    return sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:k]


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def classification(pictures, labels, classes):
    tops = [best([dot(p, c) for c in classes], 5) for p in pictures]
    per_class = {}
    for top, label in zip(tops, labels):
        per_class.setdefault(label, []).append(top[0] == label)
    return {"acc1": mean(t[0] == i for t, i in zip(tops, labels)),
            "acc5": mean(i in t for t, i in zip(tops, labels)) if len(classes) >= 5 else None,
            "mean_per_class_recall": mean(mean(v) for v in per_class.values())}


def retrieval(pictures, texts, owners, ks):
    scores = [[dot(t, p) for p in pictures] for t in texts]
    columns = list(zip(*scores))
    out = {}
    for k in ks:
        out[f"image_retrieval_recall@{k}"] = mean(o in best(s, k) for s, o in zip(scores, owners))
        out[f"text_retrieval_recall@{k}"] = mean(
            any(owners[t] == p for t in best(columns[p], k)) for p in range(len(pictures))
            if p in owners)
    return out


# ---- running ----

def rows(what, *args, task, warn=(), env=F32):
    """The rows of a run that succeeds and whose warnings have the words."""
    done = tiny.run("eval", "--task", task, *args, "--json", env=env)
    text = done.stderr.decode(errors="replace")
    missing = [w for w in warn if w not in text]
    good = done.returncode == 0 and not missing and not any(w in done.stderr
                                                            for w in tiny.SANITIZED)
    if not tiny.check(what, good, f"{done.returncode}, without {missing}: {text[-1500:]}"):
        return []
    found = [json.loads(line) for line in done.stdout.splitlines()]
    tiny.check(f"{what}: the row's keys", all(set(r) == KEYS and r["task"] == task for r in found),
               found)
    return found


def same(what, found, expected):
    good = set(found) == set(expected) and all(
        found[k] is None if v is None else abs(found[k] - v) < 1e-9 for k, v in expected.items())
    tiny.check(what, good, f"found {found}, expected {expected}")


def refused(what, words, *args, usage=False):
    done = tiny.run("eval", *args)
    problem = tiny.complaint(done)
    if not problem:
        missing = [w for w in words if w not in done.stderr.decode(errors="replace")]
        problem = f"{missing} not in {done.stderr[-500:]!r}" if missing else ""
    if not problem and done.returncode != (2 if usage else 1):
        problem = f"exit status {done.returncode}"
    tiny.check(f"refused: {what}", not problem, problem)


# ---- zero-shot classification ----

def wds(root, pictures, labels, names=NAMES, templates=TEMPLATES, split="test"):
    """CLIP_benchmark's layout in two shards."""
    half = len(pictures) // 2
    samples = [(f"s{i:07d}", {"png": p, "cls": str(c)})
               for i, (p, c) in enumerate(zip(pictures, labels))]
    shard(f"{root}/{split}/0.tar", samples[:half])
    shard(f"{root}/{split}/1.tar", samples[half:])
    write(f"{root}/{split}/nshards.txt", "2\n")
    if names:
        write(f"{root}/classnames.txt", "\n".join(names) + "\n")
    if templates:
        write(f"{root}/zeroshot_classification_templates.txt", "\n".join(templates))
    return root


def classify(work, model):
    paths = [f"{work}/pictures/{i:03d}.png" for i in range(24)]
    labels = [i * 5 % 7 % 5 for i in range(24)]     # class 5 has no picture
    vectors = [model.vector("--image", p) for p in paths]
    data = [read(p) for p in paths]
    root = wds(f"{work}/wds", data, labels)
    task = {"task": "zeroshot_classification"}
    args = ["--model", model.path, "--val-data"]

    expected = classification(vectors, labels, [model.class_vector(n, TEMPLATES) for n in NAMES])
    found = rows("wds", *args, root + "/", **task)
    same("wds: figures", found[0]["metrics"], expected)
    tiny.check("wds: names", found[0]["dataset"] == "wds" and found[0]["model"] == "run"
               and found[0]["language"] == "en" and len(found[0]["pretrained"]) == 32, found)
    four = write(f"{work}/four.txt", "\n".join(NAMES[:4]))
    plain = write(f"{work}/plain.txt", "{c}")
    expected = classification(*zip(*[(v, c) for v, c in zip(vectors, labels) if c < 4]),
                              [model.class_vector(n, ["{c}"]) for n in NAMES[:4]])
    found = rows("four classes", *args, root, "--classes", four, "--templates", plain,
                 "--language", "xx", "--dataset-name", "d", "--model-name", "m", "--pretrained",
                 "p", warn=["2 label" if labels.count(4) == 2 else f"{labels.count(4)} label",
                            'class "4"', "from 0 to 3"], **task)
    same("four classes: figures, no acc5", found[0]["metrics"], expected)
    tiny.check("four classes: names", [found[0][k] for k in ("dataset", "model", "pretrained",
                                                              "language")] == ["d", "m", "p", "xx"])
    folders = f"{work}/folders"
    for data_i, (path, label) in enumerate(zip(paths, labels)):
        write(f"{folders}/test/{'edcba'[label]}_x/{data_i:03d}.png", read(path))
    write(f"{folders}/test/stray.png", read(paths[0]))
    os.makedirs(f"{folders}/test/.hidden")
    places = [4 - label for label in labels]        # folders count in the order of their names
    expected = classification(vectors, places, [model.class_vector(f"{c} x", ["{c}"])
                                                for c in "abcde"])
    found = rows("folders", *args, folders, warn=["1 label", "stray"], **task)
    same("folders: figures", found[0]["metrics"], expected)
    done = tiny.run("eval", "--task", "zeroshot_classification", *args, folders, env=F32)
    tiny.check("folders: the table", b"mean_per_class_recall" in done.stdout
               and b"24 pictures, 5 classes" in done.stdout, done.stdout)
    bad_classes(work, args, root, data, labels)


def bad_classes(work, args, root, data, labels):
    task = ["--task", "zeroshot_classification", *args]
    bad = f"{work}/bad"

    def fresh(**more):
        tiny.remove(bad)
        return wds(bad, data, labels, **more)

    hostile = [("a", {"png": data[0], "cls": "1"}), ("b", {"png": data[1], "cls": "one"}),
               ("c", {"png": data[2], "cls": "-1"}), ("d", {"png": data[3], "cls": "6"}),
               ("e", {"png": data[4], "cls": "1.0"}), ("f", {"png": data[5]}),
               ("g", {"cls": "1"}), ("h", {"png": b"no picture", "cls": "2"}),
               ("i", {"png": data[6], "cls": ""}), ("j", {"png": data[7], "cls": b"\xff"}),
               ("k", {"png": data[8], "cls": "9" * 400}), ("l", {"png": data[9], "cls": " 2\n"})]
    shard(f"{fresh()}/test/0.tar", hostile)
    shard(f"{bad}/test/1.tar", [("m", {"png": data[0], "cls": "3"})])
    found = rows("damaged samples", *args, bad, task="zeroshot_classification",
                 warn=["5 label", "0.tar: b: class \"one\": expected a number from 0 to 5", ": c:",
                       ": d:", ": e:", ": k:", "no_caption", "f: neither .cls", "no_picture",
                       "g: no picture", "1 decode (h: expected a JPEG", "0.tar: i", "0.tar: j"])
    done = tiny.run("eval", *task, bad, env=F32)
    tiny.check("damaged samples: the others count", found and b"3 pictures" in done.stdout,
               done.stdout)
    for what, content, words in (("a number too many", "3\n", ["2.tar", "nshards.txt says 3"]),
                                 ("one too few", "1\n", ["nshards.txt says 1", "1.tar"]),
                                 ("no number", "two\n", ["nshards.txt", '"two"']),
                                 ("zero", "0\n", ["nshards.txt", '"0"']),
                                 ("huge", "9" * 30, ["nshards.txt"]),
                                 ("empty", "", ["nshards.txt", "empty"]),
                                 ("two lines", "2\n2\n", ["nshards.txt", "2 lines"])):
        write(f"{fresh()}/test/nshards.txt", content)
        refused(f"nshards.txt, {what}", words, *task, bad)
    os.remove(f"{fresh()}/test/nshards.txt")
    refused("no nshards.txt", ["nshards.txt", "not there"], *task, bad)
    shard(f"{fresh()}/test/0.tar", [])
    shard(f"{bad}/test/1.tar", [])
    refused("empty shards", ["no usable sample", "empty"], *task, bad)
    shard(f"{fresh()}/test/0.tar", [("a", {"png": data[0], "cls": "77"})])
    shard(f"{bad}/test/1.tar", [("b", {"png": data[0], "cls": "x"})])
    refused("no usable label", ["2 label"], *task, bad)
    refused("no such split", ["bad/none", "no such directory"], *task, fresh(), "--split",
            "none")
    refused("no names", ["classnames.txt", "--classes"], *task, fresh(names=None))
    refused("an empty line in the names", ["classnames.txt", "line 2"], *task,
            fresh(names=["a", "", "b"]))
    refused("names that are not UTF-8", ["names.txt", "line 1"], *task, root, "--classes",
            write(f"{work}/names.txt", b"\xff\xfe\n"))
    refused("a template without {c}", ["templates.txt", "line 2", "{c}"], *task,
            fresh(templates=["{c}", "a {class}"]))
    found = rows("a name twice is said", *args, fresh(names=["a", "b", "c", "d", "a"]),
                 task="zeroshot_classification", warn=["lines 1 and 5", '"a"'])
    tiny.check("a name twice counts twice", len(found) == 1)
    write(f"{fresh()}/dataset_type.txt", "retrieval\n")
    refused("a retrieval data set", ["dataset_type.txt says retrieval"], *task, bad)
    write(f"{bad}/dataset_type.txt", "multilabel\n")
    refused("several labels", ["multilabel"], *task, bad)
    write(f"{bad}/dataset_type.txt", "video\n")
    refused("an unknown type", ["video"], *task, bad)
    os.makedirs(f"{work}/nothing", exist_ok=True)
    refused("an empty directory", ["nothing", "nshards.txt"], *task, f"{work}/nothing")
    refused("no directory", [f"{work}/none"], *task, f"{work}/none")
    os.makedirs(f"{work}/hollow/a", exist_ok=True)
    refused("folders without pictures", ["no usable sample"], *task, f"{work}/hollow")


# ---- retrieval ----

def captions_of(work, i):
    with open(f"{work}/pictures/{i:03d}.json", encoding="utf-8") as f:
        return json.load(f)["captions"]


def retrieve_wds(work, model):
    n, root = 14, f"{work}/captions"
    texts = [[captions_of(work, i)[l] for l in ("en", "de", "ru")[:1 + i % 3]] for i in range(n)]
    samples = [(f"s{i:07d}", {"png": read(f"{work}/pictures/{i:03d}.png"),
                              "txt": "\n".join(texts[i])}) for i in range(n)]
    samples.insert(3, ("lone", {"png": samples[0][1]["png"]}))
    samples.insert(5, ("broken", {"png": b"\x89PNG", "txt": "a broken one"}))
    samples.insert(7, ("empty", {"png": samples[0][1]["png"], "txt": "  \n"}))
    samples = [s for s in samples if s[0] != "empty"]
    shard(f"{root}/test/0.tar", samples)
    write(f"{root}/test/nshards.txt", "1")
    args = ["-m", model.path, "--val-data", root]
    refused("retrieval without its type", ["dataset_type.txt"], "--task", "zeroshot_retrieval",
            *args)
    write(f"{root}/dataset_type.txt", "retrieval\n")
    pictures = [model.vector("--image", f"{work}/pictures/{i:03d}.png") for i in range(n)]
    owners = [i for i in range(n) for _ in texts[i]]
    vectors = [model.vector("--text", t) for i in range(n) for t in texts[i]]
    found = rows("wds captions", *args, "--recall-k", "1,3,5,1000", task="zeroshot_retrieval",
                 warn=["1 no_caption", "lone", "1 decode", "broken"])
    same("wds captions: figures", found[0]["metrics"],
         retrieval(pictures, vectors, owners, (1, 3, 5, 1000)))
    first = [texts[i][0] for i in range(n)]
    found = rows("one caption each", *args, "--max-captions", 1, task="zeroshot_retrieval")
    same("one caption each: figures", found[0]["metrics"],
         retrieval(pictures, [model.vector("--text", t) for t in first], list(range(n)), (1, 5, 10)))
    for ks in ("0", "1,", "1;5", "a", "1,-2", "1" + ",1" * 70):
        refused(f"--recall-k {ks[:9]}", ["--recall-k"], "--task", "zeroshot_retrieval", *args,
                "--recall-k", ks, usage=True)
    refused("an option without its task", ["--recall-k needs --task"], *args, "--recall-k", "1",
            usage=True)


def multilingual(work, model, root, what, missing, first_of):
    """Rows of both languages, whose captions are those of pictures 0..11 but `missing`."""
    args = ["-m", model.path, "--val-data", root]
    kept = [i for i in range(12) if i != missing]
    pictures = [model.vector("--image", f"{work}/pictures/{i:03d}.png") for i in kept]
    out = f"{work}/rows/{{dataset}}-{{task}}-{{language}}.json"
    os.makedirs(f"{work}/rows", exist_ok=True)
    found = rows(what, *args, "--dataset-name", f"{what}/x", "-o", out, task="zeroshot_retrieval",
                 warn=["1 unreadable", f"{missing:03d}"])
    tiny.check(f"{what}: a row for each language", [r["language"] for r in found] == ["de", "ru"],
               found)
    for row in found:
        texts = [model.vector("--text", first_of(i)[row["language"]]) for i in kept]
        same(f"{what}: figures of {row['language']}", row["metrics"],
             retrieval(pictures, texts, list(range(len(kept))), (1, 5, 10)))
        path = f"{work}/rows/{what}_x-zeroshot_retrieval-{row['language']}.json"
        tiny.check(f"{what}: its file", json.loads(read(path)) == row)
    only = rows(f"{what}: one language", *args, "--language", "ru", task="zeroshot_retrieval")
    tiny.check(f"{what}: one language", len(only) == 1 and only[0]["metrics"] ==
               found[1]["metrics"], only)
    refused(f"{what}: a language it does not have", ["xx", "de ru"], "--task",
            "zeroshot_retrieval", *args, "--language", "xx")
    refused(f"{what}: one file for two rows", ["{language}"], "--task", "zeroshot_retrieval",
            *args, "-o", f"{work}/rows/one.json")
    tiny.check("and none is written", not os.path.exists(f"{work}/rows/one.json"))


def xtd10(work, model):
    root = f"{work}/xtd10"
    for i in range(12):
        if i != 4:
            write(f"{root}/images/{i:03d}.png", read(f"{work}/pictures/{i:03d}.png"))

    def lines(language):
        return "\n".join(captions_of(work, i)[language] for i in range(12)) + "\n"
    write(f"{root}/test_image_names.txt", "\r\n".join(f"{i:03d}.png" for i in range(12)))
    write(f"{root}/test_1kcaptions_de.txt", "\ufeff" + lines("de"))
    write(f"{root}/test_1kcaptions_ru.txt", lines("ru"))
    multilingual(work, model, root, "xtd10", 4, lambda i: captions_of(work, i))
    elsewhere = f"{work}/elsewhere"
    os.rename(f"{root}/images", elsewhere)
    args = ["--task", "zeroshot_retrieval", "-m", model.path, "--val-data", root]
    found = rows("--image-root", *args[2:], "--image-root", elsewhere, task="zeroshot_retrieval")
    tiny.check("--image-root: both languages", len(found) == 2)
    refused("no picture at all", ["no usable picture", "12 unreadable", "000.png"], *args)
    os.rename(elsewhere, f"{root}/images")
    write(f"{root}/test_1kcaptions_de.txt", "\n".join(lines("de").split("\n")[:3] + [""] * 9) + "\n")
    found = rows("empty captions", *args[2:], task="zeroshot_retrieval",
                 warn=["9 caption_empty"])
    tiny.check("empty captions: both languages", len(found) == 2)
    for what, name, content, words in (
            ("a caption too few", "test_1kcaptions_de.txt", "a\n" * 11, ["_de.txt", "11", "12"]),
            ("a caption too many", "test_1kcaptions_de.txt", "a\n" * 13, ["_de.txt", "13", "12"]),
            ("not UTF-8", "test_1kcaptions_de.txt", b"a\n\xff\n" * 6, ["_de.txt", "line 2"]),
            ("no captions", "test_1kcaptions_de.txt", "", ["_de.txt", "empty"]),
            ("UTF-16", "test_1kcaptions_de.txt", "a\n".encode("utf-16") * 12, ["_de.txt"]),
            ("a NUL", "test_1kcaptions_de.txt", b"a\n\0\n" * 6, ["_de.txt", "line 2"]),
            ("one huge line", "test_1kcaptions_de.txt", b"x" * 40000000, ["_de.txt"]),
            ("a huge name", "test_image_names.txt", b"x" * 40000000, ["names.txt"]),
            ("names in UTF-16", "test_image_names.txt", "a\n".encode("utf-16") * 12, ["names.txt"]),
            ("an empty name", "test_image_names.txt", "a\n\nb\n", ["names.txt", "line 2"]),
            ("no names", "test_image_names.txt", "", ["names.txt", "empty"])):
        bad = f"{work}/bad_xtd"
        tiny.remove(bad)
        shutil.copytree(root, bad)
        write(f"{bad}/{name}", content)
        refused(f"XTD10: {what}", words, *args[:-1], bad)
    os.remove(f"{root}/test_1kcaptions_de.txt")
    os.remove(f"{root}/test_1kcaptions_ru.txt")
    refused("XTD10 without captions", ["test_1kcaptions_LANGUAGE.txt"], *args)


def crossmodal(work, model):
    root = f"{work}/xm3600"

    def captions(i):
        own = captions_of(work, i)
        return {"image/key": f"{i:03d}", "image/locale": "de",
                "de": {"caption": [own["de"], own["en"]], "caption/tokenized": ["x"]},
                "ru": {"caption": [own["ru"]]}}
    for i in range(12):
        if i != 7:
            write(f"{root}/images/{i:03d}.png", read(f"{work}/pictures/{i:03d}.png"))
    text = [json.dumps(captions(i), ensure_ascii=i % 2 == 0) for i in range(12)]
    write(f"{root}/captions.jsonl", "\n".join(text))
    multilingual(work, model, root, "xm3600", 7, lambda i: captions_of(work, i))
    args = ["-m", model.path, "--val-data", root]
    two = rows("all captions", *args, "--max-captions", 9, task="zeroshot_retrieval")
    tiny.check("all captions: of both languages", len(two) == 2)
    kept = [i for i in range(12) if i != 7]
    pictures = [model.vector("--image", f"{work}/pictures/{i:03d}.png") for i in kept]
    for row, names in zip(two, (("de", "en"), ("ru",))):
        owners = [k for k in range(len(kept)) for _ in names]
        texts = [model.vector("--text", captions_of(work, i)[n]) for i in kept for n in names]
        same(f"all captions: figures of {row['language']}", row["metrics"],
             retrieval(pictures, texts, owners, (1, 5, 10)))
    bad = ["{", "[]", '{"image/key":5}', '{"image/key":""}', '{"de":{"caption":["a"]}}']
    write(f"{root}/captions.jsonl", "\n".join(text[:6] + bad + text[6:]))
    found = rows("bad lines", *args, task="zeroshot_retrieval",
                 warn=["5 record", "line 7", "line 8", "line 9", "line 10", "line 11"])
    tiny.check("bad lines: the others count", [r["language"] for r in found] == ["de", "ru"])
    write(f"{root}/captions.jsonl", text[0].encode().replace(b"image/key", b"image/\xff") + b"\n" +
          b'{"image/key": "' + b"x" * 20000000 + b'"}\n' + "\n".join(text).encode() + b"\n")
    found = rows("damaged lines", *args, task="zeroshot_retrieval",
                 warn=["2 record", "line 1", "line 2", "16 MiB"])
    tiny.check("damaged lines: the others count", [r["language"] for r in found] == ["de", "ru"])
    for what, content in (("in UTF-16", "\n".join(text).encode("utf-16")),
                          ("of zeros", b"\0" * 100000), ("that is an array", b"[" + b"1," * 9 + b"1]"),
                          ("without a language", b'{"image/key": "000"}\n'),
                          ("of brackets", b'{"image/key": ' + b"[" * 100000)):
        write(f"{root}/captions.jsonl", content)
        refused(f"Crossmodal-3600: a file {what}", ["xm3600"], "--task", "zeroshot_retrieval", *args)
    write(f"{root}/captions.jsonl", "")
    refused("no captions", ["xm3600"], "--task",
            "zeroshot_retrieval", *args)


# ---- the linear probe ----

def probe(work, model):
    """Pictures that differ in their main colour by class, so that a probe can learn them."""
    root = f"{work}/probe"
    colours = [(220, 30, 30), (30, 220, 30), (30, 30, 220), (200, 200, 30), (30, 200, 200),
               (120, 120, 120)]
    for split, n in (("train", 15), ("val", 5), ("test", 7)):
        for c, colour in enumerate(colours):
            for i in range(n):
                seed = len(split) * 7919 + c * 131 + i
                pixels = bytes(max(0, min(255, colour[k % 3] + (seed * 31 + k * k * 17) % 61 - 30))
                               for k in range(3 * 16 * 16))
                write(f"{root}/{split}/class_{c}/{i:03d}.png", tiny_png(pixels))
    args = ["-m", model.path, "--val-data", root]
    kinds = {"searched": [], "a split to search with": ["--val-split", "val"],
             "given": ["--weight-decay", "1e-4"], "few": ["--fewshot-k", 4, "--seed", 3],
             "the names": ["--classes", write(f"{work}/six.txt", "\n".join(NAMES))]}
    for what, more in kinds.items():
        found = rows(f"probe, {what}", *args, *more, task="linear_probe")[0]
        again = rows(f"probe, {what}, again", *args, *more, task="linear_probe")[0]
        m = found["metrics"]
        tiny.check(f"probe, {what}: twice the same", found == again, (found, again))
        tiny.check(f"probe, {what}: its figures", set(m) == {
            "lp_acc1", "lp_acc5", "lp_mean_per_class_recall", "weight_decay", "seed", "fewshot_k"}
            and m["lp_acc1"] >= 0.9 and m["lp_acc5"] >= m["lp_acc1"]
            and abs(m["lp_acc1"] - m["lp_mean_per_class_recall"]) < 1e-9, m)
        tiny.check(f"probe, {what}: what it says it did", (m["weight_decay"] == 1e-4) ==
                   (what == "given") and m["fewshot_k"] == (4 if what == "few" else -1)
                   and m["seed"] == (3 if what == "few" else 0), m)
    task = ["--task", "linear_probe", *args]
    refused("more of each class than there are", ["class 0", "--fewshot-k 13"], *task,
            "--fewshot-k", 13)
    refused("the same pictures twice", ["both trained on and"], *task, "--split", "train")
    refused("too few to divide", ["--val-split"], *task, "--val-proportion", "0.001")
    refused("no splits", ["probe/train/train", "no such directory"], "--task", "linear_probe", "-m", model.path,
            "--val-data", f"{root}/train")


def tiny_png(pixels):
    """An RGB PNG of 16 x 16."""
    def chunk(name, data):
        body = name + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))
    lines = b"".join(b"\0" + pixels[48 * y:48 * (y + 1)] for y in range(16))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 16, 16, 8, 2, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b""))


def main():
    work = tiny.work_dir()
    done = tiny.run(*tiny.train_args(work, "run"))
    if tiny.check("train", done.returncode == 0, done.stderr):
        model = Model(f"{work}/logs/run/model")
        for part in (classify, retrieve_wds, xtd10, crossmodal, probe):
            part(work, model)
    tiny.remove(work)
    tiny.finish()


main()
