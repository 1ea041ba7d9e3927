#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Adapters from the command line: trained, embedded with, stacked, merged; an index keeps to the
adapters that it was built with; mistakes are told by name."""
import json
import os

import tiny
from tiny import check, run

work = tiny.work_dir()
base, adapter = f"{work}/logs/base/model", f"{work}/logs/pets/adapter"


def vector(*args):
    done = run("embed", "--text", "a picture", *args)
    check(f"embed {args}", done.returncode == 0, done.stderr)
    return json.loads(done.stdout or b"[0]")


def apart(a, b):
    return max(abs(x - y) for x, y in zip(a, b))


def refused(what, text, *args):
    done = run(*args)
    check(what, not tiny.complaint(done) and text.encode() in done.stderr,
          tiny.complaint(done) or done.stderr)


def train():
    done = run(*tiny.train_args(work, "base"))
    check("base", done.returncode == 0, done.stderr)
    before = tiny.tree(base)
    args = tiny.train_args(work, "pets", "--lora-rank", 4, "--lora-alpha", 8, "--lora-target",
                           "q_proj,v_proj,fc*", "--precision", "fp32")
    args[args.index(f"{work}/model.json")] = base
    done = run(*args)
    check("lora", done.returncode == 0 and b"/adapter\n" in done.stdout, done.stderr)
    check("the base is as it was", tiny.tree(base) == before)
    check("an adapter's files", sorted(os.listdir(adapter)) == [
        "adapter_config.json", "adapter_model.safetensors"], os.listdir(adapter))
    with open(f"{adapter}/adapter_config.json", encoding="utf-8") as f:
        config = json.load(f)
    check("its config", config["peft_type"] == "LORA" and config["r"] == 4 and
          config["lora_alpha"] == 8 and "vision_model.encoder.layers.0.self_attn.q_proj" in
          config["target_modules"], config)


def use():
    f32 = ("--precision", "f32")
    plain = vector("-m", base, *f32)
    applied = vector("-m", base, "--adapter", adapter, *f32)
    halves = vector("-m", base, "--adapter", f"{adapter}:0.5", "--adapter", f"{adapter}:0.5", *f32)
    done = run("lora", "merge", "-m", base, "--adapter", adapter, "-o", f"{work}/merged")
    check("merge", done.returncode == 0, done.stderr)
    merged = vector("-m", f"{work}/merged", *f32)
    check("the adapter does something", apart(plain, applied) > 1e-3, apart(plain, applied))
    check("merged equals applied", apart(applied, merged) < 1e-5, apart(applied, merged))
    check("two halves are one", apart(applied, halves) < 1e-5, apart(applied, halves))
    check("the run's model is the merged one", apart(merged, vector(
        "-m", f"{work}/logs/pets/model", *f32)) < 1e-5)


def index():
    done = run("index", "build", "-m", base, "--adapter", adapter, "-d", f"{work}/tiny.tar", "-o",
               f"{work}/index", "-q")
    check("index build", done.returncode == 0, done.stderr)
    done = run("search", "-i", f"{work}/index", "-m", base, "--adapter", adapter, "picture 7",
               "--json")
    check("search", done.returncode == 0 and json.loads(done.stdout)["results"], done.stderr)
    refused("an index is of its adapters", "build the index again", "search", "-i",
            f"{work}/index", "-m", base, "picture")
    refused("another weight is another model", "build the index again", "search", "-i",
            f"{work}/index", "-m", base, "--adapter", f"{adapter}:0.5", "picture")


def mistakes():
    args = tiny.train_args(work, "no", "--lora-rank", 4)
    refused("a config is no base", "belongs to weights that exist", *args)
    refused("rank 0", "--lora-rank", *args[:-1], 0)
    args[args.index(f"{work}/model.json")] = base
    refused("no such layer", "self_attn.q_proj", *args, "--lora-target", "q_prj")
    refused("options without a rank", "need --lora-rank", *args[:-2], "--lora-alpha", 4)
    refused("int8", "lora merge", "embed", "-m", base, "--adapter", adapter, "--text", "x",
            "--precision", "int8")
    refused("no adapter", "nowhere", "embed", "-m", base, "--adapter", f"{work}/nowhere", "--text",
            "x")
    refused("merge without adapters", "--adapter", "lora", "merge", "-m", base, "-o",
            f"{work}/merged")
    path = f"{adapter}/adapter_config.json"
    with open(path, encoding="utf-8") as f:
        text = f.read()
    for key, value in (("use_dora", "true"), ("modules_to_save", '["x"]'), ("r", "0")):
        with open(path, "w", encoding="utf-8") as f:
            f.write(text.replace("{", '{"%s": %s,' % (key, value), 1) if f'"{key}"' not in text
                    else text.replace(f'"{key}": 4', f'"{key}": {value}'))
        refused(f"{key} {value}", key, "embed", "-m", base, "--adapter", adapter, "--text", "x")
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)


train()
use()
index()
mistakes()
tiny.remove(work)
tiny.finish()
