#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""tessera classify: the classifier against one computed here from single embeddings, and bad input."""
import json
import math
import struct

import tiny

# One thread and f32: the program's numbers and those computed here differ by rounding alone.
F32 = tiny.environment(TESSERA_ISA="avx2")
CLASSES = ["Rotwein", "a cat", "собака", "snow", "two words"]
TEMPLATES = ["{c}", "a picture of {c}.", "{c} and {c} {again}"]
TOLERANCE = 2e-5


def write(path, data):
    with open(path, "wb") as f:
        f.write(data if isinstance(data, bytes) else data.encode())
    return path


def embed(model, *args):
    done = tiny.run("embed", "--model", model, *args, env=F32)
    return json.loads(done.stdout)


def unit(v):
    size = math.sqrt(sum(x * x for x in v))
    return [x / size for x in v]


def parameter(model, name):
    """A scalar of the model's weights; None when it has none of that name."""
    with open(f"{model}/open_clip_model.safetensors", "rb") as f:
        data = f.read()
    size = struct.unpack_from("<Q", data)[0]
    entry = json.loads(data[8:8 + size]).get(name)
    return entry and struct.unpack_from("<f", data, 8 + size + entry["data_offsets"][0])[0]


def expected(model, picture, templates):
    """Cosines of a picture with every class."""
    x = embed(model, "--image", picture)
    out = []
    for name in CLASSES:
        rows = [unit(embed(model, "--text", t.replace("{c}", name))) for t in templates]
        mean = unit([sum(column) / len(rows) for column in zip(*rows)])
        out.append(sum(a * b for a, b in zip(x, mean)))
    return out


def compare(what, found, cosines, probabilities):
    order = sorted(range(len(CLASSES)), key=lambda i: (-cosines[i], i))
    tiny.check(f"{what}: order", [g["index"] for g in found] == order, (found, cosines))
    for guess in found:
        i = guess["index"]
        good = (guess["class"] == CLASSES[i] and abs(guess["score"] - cosines[i]) < TOLERANCE
                and abs(guess["probability"] - probabilities[i]) < 20 * TOLERANCE)
        tiny.check(f"{what}: class {i}", good, (guess, cosines[i], probabilities[i]))


def classifier(work, model):
    classes = write(f"{work}/classes.txt", "\r\n".join(CLASSES))
    templates = write(f"{work}/templates.txt", "\n".join(TEMPLATES) + "\n")
    pictures = [f"{work}/pictures/{key}.png" for key in ("000", "021")]
    scale, bias = math.exp(parameter(model, "logit_scale")), parameter(model, "logit_bias")
    for more, used in ((["-t", templates], TEMPLATES), ([], ["{c}"])):
        done = tiny.run("classify", "-m", model, "-c", classes, *more, "-k", 9, "--json",
                        *pictures, env=F32)
        if not tiny.check("classify", done.returncode == 0, done.stderr):
            continue
        for picture, answer in zip(pictures, json.loads(done.stdout)):
            tiny.check("its path", answer["path"] == picture, answer)
            cosines = expected(model, picture, used)
            if bias is None:
                powers = [math.exp(scale * x) for x in cosines]
                probabilities = [p / sum(powers) for p in powers]
            else:
                probabilities = [1 / (1 + math.exp(-scale * x - bias)) for x in cosines]
            compare(f"{picture}, {len(used)} templates", answer["classes"], cosines, probabilities)
    done = tiny.run("classify", "-m", model, "-c", classes, "-k", 2, *pictures)
    lines = done.stdout.decode().splitlines()
    tiny.check("the table", len(lines) == 6 and lines[0] == pictures[0] and lines[3] == pictures[1]
               and lines[1][2:8] >= lines[2][2:8], lines)


def sigmoid_model(work):
    """A model with a logit bias, whose probabilities are each class's own."""
    with open(f"{work}/model.json", encoding="utf-8") as f:
        config = json.load(f)
    config["model_cfg"]["init_logit_bias"] = -1.5
    config["tessera"]["image_text"]["kind"] = "sigmoid"
    write(f"{work}/sigmoid.json", json.dumps(config))
    done = tiny.run(*tiny.train_args(work, "sigmoid", "--model", f"{work}/sigmoid.json"))
    tiny.check("train with sigmoid", done.returncode == 0, done.stderr)
    return f"{work}/logs/sigmoid/model"


def refused(what, words, *args, usage=False):
    done = tiny.run(*args)
    problem = tiny.complaint(done)
    if not problem:
        missing = [w for w in words if w not in done.stderr.decode(errors="replace")]
        problem = f"{missing} not in {done.stderr[-500:]!r}" if missing else ""
    if not problem and done.returncode != (2 if usage else 1):
        problem = f"exit status {done.returncode}"
    tiny.check(what, not problem, problem)


def bad_input(work, model):
    good = write(f"{work}/good.txt", "a\nb\n")
    picture = f"{work}/pictures/000.png"

    def classes(what, content, *words):
        path = write(f"{work}/bad.txt", content)
        refused(f"classes: {what}", ["bad.txt", *words], "classify", "-m", model, "-c", path,
                picture)
    classes("an empty line", "a\n\nb\n", "line 2", "empty")
    classes("a blank first line", "  \nb\n", "line 1")
    classes("nothing", b"", "empty")
    classes("twice", "a\nb\nc\n b \n", "lines 2 and 4", '"b"')
    classes("not UTF-8", b"a\nb\xff\xfe\n", "line 2", "UTF-8")
    path = write(f"{work}/bad.txt", "a\n\u3000\n")
    refused("a class without a word", ["holds no word"], "classify", "-m", model, "-c", path,
            picture)
    classes("a NUL", b"a\0b\n", "line 1")
    refused("no file", ["none.txt"], "classify", "-m", model, "-c", f"{work}/none.txt", picture)
    for what, content, *words in (("without {c}", "a {c}\na {d}\n", "line 2", "{c}"),
                                  ("empty", "\n", "line 1")):
        path = write(f"{work}/bad.txt", content)
        refused(f"templates: {what}", ["bad.txt", *words], "classify", "-m", model, "-c", good,
                "-t", path, picture)
    refused("no classes", ["--classes"], "classify", "-m", model, picture, usage=True)
    refused("no picture", ["PICTURE"], "classify", "-m", model, "-c", good, usage=True)
    damaged = write(f"{work}/damaged.png", b"\x89PNG\r\n\x1a\n and then nothing")
    done = tiny.run("classify", "-m", model, "-c", good, damaged, picture, f"{work}/none.png",
                    "--json")
    answers = json.loads(done.stdout or b"[]")
    tiny.check("damaged pictures: the good one is answered", done.returncode == 1
               and [a["path"] for a in answers] == [picture], (done, answers))
    tiny.check("damaged pictures: are named", b"damaged.png" in done.stderr
               and b"none.png" in done.stderr and b"2 of 3" in done.stderr, done.stderr)


def main():
    work = tiny.work_dir()
    done = tiny.run(*tiny.train_args(work, "run"))
    if tiny.check("train", done.returncode == 0, done.stderr):
        classifier(work, f"{work}/logs/run/model")
        classifier(work, sigmoid_model(work))
        bad_input(work, f"{work}/logs/run/model")
    tiny.remove(work)
    tiny.finish()


main()
