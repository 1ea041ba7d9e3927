#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Mixtures from the command line: an image tower that knows English meets a text tower of BERT's
kind that knows nothing, by LiT on pictures and by distillation from translated captions alone; both
must then find pictures in languages that the first model never read.  Pictures are two coloured
halves, a hundred of them, so recall at 1 by chance is 0.01."""
import json
import os
import random
import struct
import zlib

import tiny
from tiny import check, run

work = tiny.work_dir()
SIDE = 16
COLOURS = {
    "en": "red green blue yellow black white orange purple brown pink",
    "de": "rot grün blau gelb schwarz weiß orange violett braun rosa",
    "ru": "красный зелёный синий жёлтый чёрный белый оранжевый лиловый бурый розовый",
}
PHRASES = {"en": "{} on the left and {} on the right", "de": "links {} und rechts {}",
           "ru": "слева {} справа {}"}
RGB = ((220, 30, 30), (30, 180, 40), (30, 50, 220), (230, 220, 40), (10, 10, 10), (245, 245, 245),
       (240, 140, 20), (130, 40, 160), (110, 70, 30), (250, 150, 190))


def caption(language, left, right):
    words = COLOURS[language].split()
    return PHRASES[language].format(words[left], words[right])


def png(left, right):
    """The two halves."""
    def chunk(name, data):
        body = name + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))
    row = b"\0" + bytes(RGB[left]) * (SIDE // 2) + bytes(RGB[right]) * (SIDE // 2)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(row * SIDE, 9)) + chunk(b"IEND", b""))


def make_data():
    """all.jsonl and english.jsonl with pictures; texts.jsonl and texts.csv without."""
    os.makedirs(f"{work}/halves")
    kinds = {"all": COLOURS, "english": ("en",), "texts": COLOURS, "german": ("de",)}
    lines = {kind: [] for kind in kinds}
    rows = ["en,de,ru"]
    for left in range(10):
        for right in range(10):
            name = f"halves/{left}{right}.png"
            with open(f"{work}/{name}", "wb") as f:
                f.write(png(left, right))
            for kind, languages in kinds.items():
                line = {"captions": {l: caption(l, left, right) for l in languages}}
                line.update({} if kind == "texts" else {"image": name})
                lines[kind].append(json.dumps(line, ensure_ascii=False))
            rows.append(",".join(caption(l, left, right) for l in ("en", "de", "ru")))
    for kind, some in lines.items():
        with open(f"{work}/{kind}.jsonl", "w", encoding="utf-8") as f:
            f.write("\n".join(some) + "\n")
    with open(f"{work}/texts.csv", "w", encoding="utf-8") as f:
        f.write("\n".join(rows) + "\n")


def save_tensors(path, tensors):
    """safetensors of {name: (shape, floats)}, f32."""
    header, data, at = {}, [], 0
    for name, (shape, values) in tensors.items():
        data.append(struct.pack(f"<{len(values)}f", *values))
        header[name] = {"dtype": "F32", "shape": list(shape),
                        "data_offsets": [at, at + len(data[-1])]}
        at += len(data[-1])
    text = json.dumps(header).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(data))


def make_bert(path, width=32, layers=2, hidden=64, positions=24):
    """A BERT directory with drawn weights, whose words are those of the captions."""
    dice = random.Random(5)
    words = {w.lower() for l in PHRASES for w in (COLOURS[l] + " " + PHRASES[l]).split() if w != "{}"}
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(words)]
    os.makedirs(path)

    def normal(*shape, deviation=0.1):
        n = 1
        for d in shape:
            n *= d
        return shape, [dice.gauss(0, deviation) for _ in range(n)]

    tensors = {"embeddings.word_embeddings.weight": normal(len(vocab), width, deviation=0.3),
               "embeddings.position_embeddings.weight": normal(positions, width),
               "embeddings.token_type_embeddings.weight": normal(2, width)}

    def norm(name):
        tensors[name + ".weight"] = (width,), [1.0] * width
        tensors[name + ".bias"] = (width,), [0.0] * width

    def linear(name, rows, cols):
        tensors[name + ".weight"] = normal(rows, cols, deviation=cols ** -0.5)
        tensors[name + ".bias"] = (rows,), [0.0] * rows

    norm("embeddings.LayerNorm")
    for i in range(layers):
        at = f"encoder.layer.{i}."
        for part in ("query", "key", "value"):
            linear(at + "attention.self." + part, width, width)
        linear(at + "attention.output.dense", width, width)
        norm(at + "attention.output.LayerNorm")
        linear(at + "intermediate.dense", hidden, width)
        linear(at + "output.dense", width, hidden)
        norm(at + "output.LayerNorm")
    save_tensors(f"{path}/model.safetensors", tensors)
    config = {"model_type": "bert", "hidden_size": width, "num_hidden_layers": layers,
              "num_attention_heads": 2, "intermediate_size": hidden, "hidden_act": "gelu",
              "max_position_embeddings": positions, "type_vocab_size": 2,
              "vocab_size": len(vocab), "pad_token_id": 0, "layer_norm_eps": 1e-12}
    with open(f"{path}/config.json", "w", encoding="utf-8") as f:
        json.dump(config, f)
    with open(f"{path}/vocab.txt", "w", encoding="utf-8") as f:
        f.write("\n".join(vocab) + "\n")
    with open(f"{path}/tokenizer_config.json", "w", encoding="utf-8") as f:
        json.dump({"tokenizer_class": "BertTokenizer", "do_lower_case": True,
                   "strip_accents": False}, f)


def train(name, model, data, steps, *more):
    done = run("train", "--train-data", data, "--model", model, "--logs", f"{work}/logs", "--name",
               name, "--batch-size", 50, "--steps", steps, "--lr", 3e-3, "--wd", 0, "--seed", 1,
               "--warmup", 10, "--precision", "fp32", "--quiet", *more)
    check(f"train {name}", done.returncode == 0, done.stderr)
    return f"{work}/logs/{name}/model"


def recalls(model):
    """Recall at 1 of texts for pictures, by language."""
    done = run("eval", "-m", model, "--val-data", f"{work}/all.jsonl", "--json")
    check(f"eval {model}", done.returncode == 0, done.stderr)
    return {l: r["all"]["R@1"] for l, r in json.loads(done.stdout)["languages"].items()}


def image_tensors(model):
    """Bytes of the image tower's tensors by name."""
    with open(f"{model}/open_clip_model.safetensors", "rb") as f:
        data = f.read()
    n = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + n])
    return {name: data[8 + n + t["data_offsets"][0]:8 + n + t["data_offsets"][1]]
            for name, t in header.items() if name.startswith(("visual.", "logit_"))}


def refused(what, text, *args):
    done = run(*args)
    check(what, not tiny.complaint(done) and text.encode() in done.stderr,
          tiny.complaint(done) or done.stderr)


def test_meeting():
    bert, mixture = f"{work}/bert", f"{work}/mixture"
    make_bert(bert)
    english = train("english", f"{work}/model.json", f"{work}/english.jsonl", 300)
    found = recalls(english)
    check("the first model knows English alone", found["en"] > 0.9 and found["de"] < 0.15 and
          found["ru"] < 0.15, found)
    done = run("mix", "--image", english, "--text", bert, "-o", mixture, "--seed", 2)
    check("mix", done.returncode == 0 and b"new projection" in done.stdout, done.stderr)
    found = recalls(mixture)
    check("strangers at first", max(found.values()) < 0.1, found)

    lit = train("lit", mixture, f"{work}/all.jsonl", 150, "--lock-image", "--captions-per-image", 3)
    found = recalls(lit)
    check("LiT: the towers meet", min(found.values()) > 0.7, found)
    towers = {k: v for k, v in image_tensors(lit).items() if k.startswith("visual.")}
    check("LiT: the image tower is as it was", towers and all(
        image_tensors(english)[k] == v for k, v in towers.items()))

    for loss, data in (("mse", "texts.jsonl"), ("contrastive", "texts.csv")):
        distilled = train(loss, mixture, f"{work}/{data}", 200, "--distill-text", english,
                          "--distill-loss", loss)
        found = recalls(distilled)
        check(f"{loss}: all languages find pictures", min(found.values()) > 0.7, found)
        check(f"{loss}: image tower and scale are as they were",
              image_tensors(english) == image_tensors(distilled))
    return english, bert, mixture


def resume(name, model, data, *more):
    """A run that goes on from its own middle gives the same bytes."""
    whole = train(name, model, data, 12, "--save-every-n-steps", 6, *more)
    rest = train(name + "_rest", model, data, 12, "--resume",
                 f"{work}/logs/{name}/checkpoints/step_00000006", *more)
    check(f"{name}: resumed to the byte", tiny.tree(whole) == tiny.tree(rest))


def test_resume(english, mixture):
    resume("again", mixture, f"{work}/texts.jsonl", "--distill-text", english, "--workers", 2)
    resume("lit_again", mixture, f"{work}/all.jsonl", "--lock-image")
    args = ["train", "--train-data", f"{work}/texts.jsonl", "--model", mixture, "--logs",
            f"{work}/logs", "--name", "other", "--batch-size", 50, "--steps", 12, "--resume",
            f"{work}/logs/again/checkpoints/step_00000006", "--distill-text"]
    refused("another loss is another run", "other options", *args, english, "--lr", 3e-3, "--wd", 0,
            "--seed", 1, "--warmup", 10, "--precision", "fp32", "--distill-loss", "contrastive")


def test_mistakes(english, bert, mixture):
    f = tiny.ROOT + "/tests/fixtures/"
    refused("mix without parts", "mix needs", "mix", "--image", english)
    refused("no image tower", "text tower alone", "mix", "--image", bert, "--text", english, "-o",
            f"{work}/no")
    refused("no text tower", "text tower's model", "mix", "--image", english, "--text", work, "-o",
            f"{work}/no")
    refused("sizes differ", "new projection", "mix", "--image", f + "formats/hf_clip", "--text", bert, "-o",
            f"{work}/no", "--projection", "keep")
    args = ["train", "--train-data", f"{work}/texts.jsonl", "--logs", f"{work}/logs", "--name", "no",
            "--batch-size", 50, "--steps", 2, "--model"]
    teach = ["--distill-text", english]
    refused("a student without pictures", "tessera mix", *args, bert, *teach)
    refused("a teacher of another size", "vectors of 16", *args, mixture, "--distill-text",
            f + "formats/hf_clip")
    refused("a teacher without pictures", "vectors of", *args, f + "formats/hf_clip",
            "--distill-text", bert)
    refused("a teacher of other pictures", "another image tower", *args, f + "formats/hf_siglip",
            "--distill-text", mixture)
    refused("no such language", "it has de, en, ru", *args, mixture, *teach, "--distill-language",
            "fr")
    refused("pictures without captions in English", "no captions in", *args[:2],
            f"{work}/german.jsonl", *args[3:], mixture, *teach)
    refused("one caption", "--captions-per-image 2", *args, mixture, *teach, "--captions-per-image",
            1)
    refused("a locked student", "--lock-text", *args, mixture, *teach, "--lock-text")
    refused("an adapter", "--lora-rank", *args, mixture, *teach, "--lora-rank", 2)
    refused("a loss without a teacher", "need --distill-text", *args, mixture, "--distill-loss",
            "mse")
    refused("no teacher there", "the teacher", *args, mixture, "--distill-text", f"{work}/nobody")
    refused("a table without languages", "--caption-key", *args[:2], f"{work}/texts.csv", *args[3:],
            mixture, *teach, "--caption-key", "it|es")
    refused("training with pictures needs pictures", "no picture", *args, mixture)
    done = run("convert", "-m", mixture, "--to", "hf", "-o", f"{work}/hf")
    check("what a layout cannot say", "cannot say" in done.stderr.decode(), done.stderr)
    with open(f"{mixture}/vocab.txt", "a", encoding="utf-8") as file:
        file.write("one\ntwo\n")
    refused("a tokenizer of another model", "belong to different models", "embed", "-m", mixture,
            "--text", "red")


make_data()
try:
    english, bert, mixture = test_meeting()
    test_resume(english, mixture)
    test_mistakes(english, bert, mixture)
finally:
    tiny.remove(work)
tiny.finish()
