#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Exported models: valid for onnx.checker, and equal to `tessera embed` to 1e-4 for every kind of
tower, batches of 1, 3 and 8, texts of several lengths and both namings; and what export refuses."""
import json
import os
import shutil
import sys

import numpy as np
import onnx
import onnx_models
import sentencepiece
import tiny
from PIL import Image

sys.path.insert(0, os.path.join(tiny.ROOT, "tests", "tensor"))
import onnx_eval  # noqa: E402

LIMIT = 1e-4
models = []


def open_model(path):
    m = onnx_eval.Model(path)
    models.append(m)
    return lambda inputs: m.run(**inputs)


def check_variant(work, name, vision, text):
    model = onnx_models.make(work, name, vision, text)
    want = onnx_models.wanted(work, model)
    for naming, more in (("immich", ()), ("optimum", ("--external-data",))):
        out = f"{work}/{name}_{naming}"
        onnx_models.export(model, out, naming, *more)
        off = onnx_models.differences(want, out, naming, open_model)
        tiny.check(f"{name}, {naming}", max(off) < LIMIT, off)
        # Sensitive enough: other texts have other vectors.
        spread = np.abs(want["text_vectors"][0] - want["text_vectors"][1]).max()
        tiny.check(f"{name}: texts differ", spread > 100 * LIMIT, spread)
    return model


def check_inputs():
    """The last models opened are of Optimum's naming, external."""
    by_name = {tuple(sorted(m.inputs)): m for m in models}
    text = by_name[("attention_mask", "input_ids")]
    tiny.check("ids and mask are i64", set(text.types.values()) == {onnx.TensorProto.INT64})
    tiny.check("dynamic", text.inputs["input_ids"] == ["batch_size", "sequence_length"], text.inputs)
    tiny.check("external", len(text.external) >= 5, text.external)
    tiny.check("i32 for Immich", by_name[("text",)].types["text"] == onnx.TensorProto.INT32)
    tiny.check("inside otherwise", not by_name[("text",)].external)


def check_options(work, model):
    out = f"{work}/fixed"
    sizes = onnx_models.export(model, out, "immich", "--batch", 4, "--precision", "fp16")
    m = onnx_eval.Model(f"{out}/visual/model.onnx")
    tiny.check("a fixed batch", m.inputs["image"][0] == 4, m.inputs)
    tiny.check("sizes are said", all(os.path.getsize(f"{out}/{n}") == s for n, s in sizes.items()))
    want = onnx_models.wanted(work, model)
    got = m.run(image=want["pictures"][:4])["embedding"]
    off = np.abs(got - want["picture_vectors"][:4]).max()
    tiny.check("weights in f16 are near", 0 < off < 2e-3, off)
    tiny.check("and half as large", sizes["visual/model.onnx"] < 90000, sizes)
    with open(f"{out}/config.json", encoding="utf-8") as f:
        tiny.check("config.json is model_cfg", json.load(f)["embed_dim"] == 32)
    with open(f"{out}/visual/preprocess_cfg.json", encoding="utf-8") as f:
        tiny.check("preprocess_cfg.json", json.load(f)["interpolation"] == "bicubic")
    with open(f"{out}/textual/tokenizer_config.json", encoding="utf-8") as f:
        tiny.check("tokenizer_config.json", json.load(f)["eos_token"] == "</s>")


def check_adapter(work, model):
    """An export with an adapter is that of the merged weights."""
    done = tiny.run("train", "--train-data", f"{work}/tiny.tar", "--model", model, "--logs",
                    f"{work}/logs", "--name", "adapter", "--batch-size", 8, "--steps", 2, "--lr",
                    2e-2, "--lora-rank", 2, "--quiet", env=onnx_models.environment())
    tiny.check("an adapter is trained", done.returncode == 0, done.stderr)
    adapter = ("--adapter", f"{work}/logs/adapter/adapter:3")
    onnx_models.export(model, f"{work}/adapted", "immich", *adapter)
    plain, adapted = onnx_models.wanted(work, model), onnx_models.wanted(work, model, *adapter)
    moved = np.abs(plain["picture_vectors"] - adapted["picture_vectors"]).max()
    off = onnx_models.differences(adapted, f"{work}/adapted", "immich", open_model)
    tiny.check("with an adapter", max(off) < LIMIT < moved, (off, moved))


def check_tokenizer_json(work):
    """A model with a tokenizer.json gives it on; others say what is missing."""
    folder = os.path.join(tiny.ROOT, "tests/fixtures/text/hf/xlmr")
    with open(f"{folder}/tokenizer.json", encoding="utf-8") as f:
        vocab = json.load(f)
    n = 1 + max([len(vocab["model"]["vocab"]) - 1, *(t["id"] for t in vocab["added_tokens"])])
    os.makedirs(f"{work}/json")
    shutil.copy(f"{folder}/tokenizer.json", f"{work}/json/own.json")
    model = onnx_models.make(work, "json/model", {}, {"vocab_size": n, "eos_id": 2, "tokenizer":
                                                      "own.json"}, f"{work}/json/own.json")
    for naming, part in (("immich", "/textual"), ("optimum", "")):
        out = f"{work}/json/{naming}"
        done = tiny.run("export", "onnx", "--model", model, "--out", out, "--naming", naming)
        tiny.check(f"{naming} with tokenizer.json", done.returncode == 0 and
                   b"no tokenizer.json" not in done.stderr, done.stderr)
        with open(f"{out}{part}/tokenizer.json", encoding="utf-8") as f:
            tiny.check(f"{naming}: the same tokenizer", json.load(f) == vocab)
        with open(f"{out}{part}/tokenizer_config.json", encoding="utf-8") as f:
            tiny.check(f"{naming}: its tokens", json.load(f)["eos_token"] == "</s>")


def check_tokenizer_model(work):
    """A SentencePiece unigram model goes along as tokenizer.json too; of BPE it is said that not."""
    out = f"{work}/no_json"
    done = tiny.run("export", "onnx", "--model", f"{work}/logs/mean/model", "--out", out)
    ids = [json.loads(tiny.run("tokenize", "--json", "--eos", "--model", f"{out}/textual/{name}",
                               "ein rotes Haus am See").stdout)["ids"]
           for name in ("spm.model", "tokenizer.json")]
    tiny.check("spm.model as tokenizer.json", done.returncode == 0 and ids[0] == ids[1] and
               len(ids[0]) > 5 and b"tokenizer" not in done.stderr, (ids, done.stderr))
    bpe = os.path.join(tiny.ROOT, "tests/fixtures/text/bpe.model")
    n = sentencepiece.SentencePieceProcessor(model_file=bpe).get_piece_size()
    model = onnx_models.make(work, "json/bpe", {}, {"vocab_size": n, "tokenizer": "spm.model"}, bpe)
    done = tiny.run("export", "onnx", "--model", model, "--out", out)
    tiny.check("a missing tokenizer.json is said", b"no tokenizer.json" in done.stderr and
               os.path.exists(f"{out}/textual/spm.model") and
               not os.path.exists(f"{out}/textual/tokenizer.json"), done.stderr)


def foreign_ids(model, text, length):
    """A model directory's ids of a text; filled up where the exported tower has a fixed length."""
    done = tiny.run("tokenize", "--json", "--special", "--model", model, text)
    assert done.returncode == 0, done.stderr.decode()
    ids = json.loads(done.stdout)["ids"][:length if isinstance(length, int) else None]
    return np.array([ids + [1] * (length - len(ids) if isinstance(length, int) else 3)], np.int64)


def check_foreign(work, folder, texts):
    """A model of another program, opened from its own directory."""
    name = os.path.basename(folder)
    out = f"{work}/foreign_{name}"
    onnx_models.export(folder, out, "optimum")
    m = onnx_eval.Model(f"{out}/onnx/text_model.onnx")
    for text in texts:
        ids = foreign_ids(folder, text, m.inputs["input_ids"][1])
        inputs = {"input_ids": ids}
        if "attention_mask" in m.inputs:
            inputs["attention_mask"] = np.ones_like(ids)
            inputs["attention_mask"][:, -3:] = 0
        off = np.abs(m.run(**inputs)["text_embeds"][0] -
                     onnx_models.vector(folder, "--text", text)).max()
        tiny.check(f"{name}: \"{text}\"", off < LIMIT, off)
    if not os.path.exists(f"{out}/onnx/vision_model.onnx"):
        return
    with open(f"{out}/preprocessor_config.json", encoding="utf-8") as f:
        p = json.load(f)
    path = onnx_models.pictures(work, 16)[0]
    x = np.asarray(Image.open(path), np.float32) / 255
    x = ((x - np.float32(p["image_mean"])) / np.float32(p["image_std"])).transpose(2, 0, 1)[None]
    got = onnx_eval.Model(f"{out}/onnx/vision_model.onnx").run(pixel_values=x)["image_embeds"][0]
    off = np.abs(got - onnx_models.vector(folder, "--image", path)).max()
    tiny.check(f"{name}: a picture", off < LIMIT, off)


def check_directories(work):
    top = os.path.join(tiny.ROOT, "tests/fixtures")
    for name in ("formats/hf_clip", "formats/hf_siglip", "formats/openclip_tok",
                 "formats/openclip_avg", "sentence/bert", "sentence/xlmr", "sentence/st_mean",
                 "sentence/st_cls", "sentence/st_dense"):
        check_foreign(work, f"{top}/{name}", ("a cat", "b c a"))


def refused(what, words, *args, env=None):
    done = tiny.run("export", "onnx", *args, env=env)
    problem = tiny.complaint(done)
    missing = [w for w in words if w.encode() not in done.stderr]
    tiny.check(what, not problem and not missing, f"{problem} {missing} {done.stderr[-400:]!r}")


def check_refusals(work, model):
    mine = f"{work}/mine"
    os.makedirs(mine)
    with open(f"{mine}/letter.txt", "w", encoding="utf-8") as f:
        f.write("dear")
    args = ("--model", model, "--out")
    refused("somebody's directory", ["is no export"], *args, mine)
    tiny.check("is left alone", os.listdir(mine) == ["letter.txt"])
    refused("a file", ["is no directory"], *args, f"{mine}/letter.txt")
    refused("a path through a file", ["letter.txt"], *args, f"{mine}/letter.txt/x")
    refused("a model that is none", ["nowhere"], "--model", f"{work}/nowhere", "--out", f"{work}/n")
    refused("no --out", ["--out"], "--model", model)
    for batch in ("0", "-1", "many", "99999999999999999999", "3x", ""):
        refused(f"--batch '{batch}'", ["dynamic"], *args, f"{work}/n", f"--batch={batch}")
    tiny.check("nothing was made", not os.path.exists(f"{work}/n"))


def check_faults(work, model):
    """Exports over an older one that fail on the way: the old one stands, nothing lies beside it."""
    out = f"{work}/faults/out"
    os.makedirs(f"{work}/faults")
    onnx_models.export(model, out, "immich")
    before = tiny.tree(out)
    n_failed = 0
    for kind in ("write", "fsync", "rename", "alloc"):
        n = 1
        n_fine = 0  # a failed line of the log is no failure of the export
        while n < 3000 and n_fine < 2:
            done = tiny.run("export", "onnx", "--model", model, "--out", out, "--external-data",
                            env=tiny.environment(TESSERA_FAULT=f"{kind}:{n}"))
            what = f"{kind}:{n}"
            n = n + 1 if n < 3 else n * 2
            if done.returncode == 0:
                n_fine += 1
                onnx_models.export(model, out, "immich")
                continue
            n_failed += 1
            tiny.check(f"{what}: one clear failure", not tiny.complaint(done), tiny.complaint(done))
            # A directory's fsync may fail behind the exchange: then the new one stands, whole.
            tiny.check(f"{what}: the old export stands", kind == "fsync" or tiny.tree(out) == before)
            tiny.check(f"{what}: nothing beside it", os.listdir(f"{work}/faults") == ["out"],
                       os.listdir(f"{work}/faults"))
        onnx_models.export(model, out, "immich")
        tiny.check(f"{kind}: replaced by an export that works", tiny.tree(out) == before)
    tiny.check("faults were met", n_failed > 15, n_failed)


def main():
    work = tiny.work_dir()
    try:
        for name, (vision, text) in onnx_models.VARIANTS.items():
            model = check_variant(work, name, vision, text)
        check_inputs()
        model = f"{work}/logs/class_token/model"
        check_options(work, model)
        check_adapter(work, model)
        check_tokenizer_json(work)
        check_tokenizer_model(work)
        check_directories(work)
        check_refusals(work, model)
        check_faults(work, model)
    finally:
        tiny.remove(work)
    tiny.finish()


main()
