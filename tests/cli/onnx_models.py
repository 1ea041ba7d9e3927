# SPDX-License-Identifier: Apache-2.0
"""Small models of every kind of tower, their exports, and what they must give: for test_onnx.py and
script/parity-onnx."""
import json
import os

import numpy as np
import tiny
from PIL import Image

BATCHES = (1, 3, 8)
TEXTS = ("a red car", "ein Haus am See", "x", "кошка спит на диване",
         "two dogs run over a green field while a third one sleeps under the old tree", "B", "a cat",
         "grüne Wiese")

# Changes of tiny's model.json: (vision_cfg, text_cfg).
VARIANTS = {
    "class_token": ({}, {"no_causal_mask": False}),
    "mean": ({"pool_type": "avg", "class_token": False, "act": "quick_gelu", "no_ln_pre": True},
             {"pool_type": "mean", "act": "gelu_tanh"}),
    "mean_rest": ({"pool_type": "avg", "final_ln_after_pool": True, "act": "silu",
                   "patch_bias": True}, {"pool_type": "mean_sqrt_len", "proj_bias": True}),
    "query": ({"pool_type": "map", "class_token": False, "act": "relu"},
              {"pool_type": "first", "act": "relu"}),
    "probe": ({"pool_type": "probe", "class_token": False, "act": "gelu_tanh", "no_ln_pre": True,
                "no_proj": True},
               {"pool_type": "last", "proj_bias": True}),
}


def environment():
    """`tessera embed` in f32, whatever the processor does best."""
    return tiny.environment(TESSERA_ISA="avx2")


def make(work, name, vision, text, tokenizer=None):
    """A model directory of this variant after one update."""
    with open(f"{work}/model.json", encoding="utf-8") as f:
        config = json.load(f)
    config["model_cfg"]["vision_cfg"].update(vision)
    config["model_cfg"]["text_cfg"].update(text)
    if vision.get("no_proj"):
        config["model_cfg"]["embed_dim"] = config["model_cfg"]["vision_cfg"]["width"]
    path = f"{work}/{name}.json"
    with open(path, "w", encoding="utf-8") as f:
        json.dump(config, f)
    done = tiny.run("train", "--train-data", f"{work}/tiny.tar", "--model", path, "--tokenizer",
                    tokenizer or f"{work}/spm.model", "--logs", f"{work}/logs", "--name", name,
                    "--batch-size", 8, "--steps", 1, "--lr", 1e-2, "--seed", 1, "--quiet", env=environment())
    assert done.returncode == 0, done.stderr.decode()
    return f"{work}/logs/{name}/model"


def vector(model, *what):
    done = tiny.run("embed", "--model", model, "--precision", "f32", *what, env=environment())
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def pictures(work, size):
    """Paths of pictures of this size, so that no resizing comes between."""
    dice = np.random.default_rng(7)
    paths = [f"{work}/{size}_{i}.png" for i in range(max(BATCHES))]
    for path in paths:
        blocks = dice.integers(0, 256, (4, 4, 3), np.uint8)
        Image.fromarray(blocks).resize((size, size), Image.BILINEAR).save(path)
    return paths


def wanted(work, model, *more):
    """What `tessera embed` says of the pictures and texts, and what a consumer gives the models."""
    with open(f"{model}/open_clip_config.json", encoding="utf-8") as f:
        config = json.load(f)
    paths = pictures(work, config["model_cfg"]["vision_cfg"]["image_size"])
    p = config["preprocess_cfg"]
    pixels = [(np.asarray(Image.open(path).convert("RGB"), np.float32) / 255 -
               np.asarray(p["mean"], np.float32)) / np.asarray(p["std"], np.float32)
              for path in paths]
    text = config["model_cfg"]["text_cfg"]
    ids = []
    for t in TEXTS:
        done = tiny.run("tokenize", "--model", f"{model}/{text['tokenizer']}", "--eos", "--clean",
                        "--max-length", text["context_length"], "--json", t)
        ids.append(json.loads(done.stdout)["ids"])
    return {"text_cfg": text, "pictures": np.stack(pixels).transpose(0, 3, 1, 2).astype(np.float32),
            "ids": ids,
            "picture_vectors": np.array([vector(model, "--image", x, *more) for x in paths]),
            "text_vectors": np.array([vector(model, "--text", t, *more) for t in TEXTS])}


def text_inputs(want, begin, n, naming):
    """Ids of n texts filled up: with pad ids to the context where the tower reads them; else with
    the padding that matters least, anything at all behind the end id for Immich's names."""
    cfg = want["text_cfg"]
    ids = want["ids"][begin:begin + n]
    whole = cfg.get("pad_to_context", False)
    length = cfg["context_length"] if whole else max(map(len, ids)) + (begin > 0)
    dice = np.random.default_rng(begin)
    filled = np.full((n, length), cfg["pad_id"], np.int64)
    if not whole and naming == "immich":
        filled = dice.integers(0, cfg["vocab_size"], (n, length))
    mask = np.zeros((n, length), np.int64)
    for i, x in enumerate(ids):
        filled[i, :len(x)] = x
        mask[i, :len(x)] = 1
    if naming == "immich":
        return {"text": filled.astype(np.int32)}
    return {"input_ids": filled} if whole else {"input_ids": filled, "attention_mask": mask}


NAMES = {"immich": ("visual/model.onnx", "image", "textual/model.onnx", "embedding", "embedding"),
         "optimum": ("onnx/vision_model.onnx", "pixel_values", "onnx/text_model.onnx",
                     "image_embeds", "text_embeds")}


def export(model, out, naming, *more):
    done = tiny.run("export", "onnx", "--model", model, "--out", out, "--naming", naming, "--json",
                    *more)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def differences(want, out, naming, open_model):
    """The largest differences of (picture, text) vectors over batches of several sizes;
    open_model(path) gives run(inputs) -> outputs by name."""
    vision, pixels, text, picture_out, text_out = NAMES[naming]
    see, read = open_model(os.path.join(out, vision)), open_model(os.path.join(out, text))
    off = [0.0, 0.0]
    for n in BATCHES:
        for begin in {0, max(BATCHES) - n}:
            got = see({pixels: want["pictures"][begin:begin + n]})[picture_out]
            assert got.shape == (n, want["picture_vectors"].shape[1]), got.shape
            off[0] = max(off[0], np.abs(got - want["picture_vectors"][begin:begin + n]).max())
            got = read(text_inputs(want, begin, n, naming))[text_out]
            off[1] = max(off[1], np.abs(got - want["text_vectors"][begin:begin + n]).max())
    return off
