#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Another program's model from the command line: opened, trained, and written back in its layout."""
import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import tiny  # noqa: E402

FORMATS = os.path.join(tiny.ROOT, "tests/fixtures/formats")


def vector(model):
    result = tiny.run("embed", "--model", model, "--text", "a red car", "--precision", "f32")
    tiny.check(f"{model}: embeds", result.returncode == 0, result.stderr)
    return json.loads(result.stdout or b"[]")


def near(a, b):
    return len(a) == len(b) > 0 and max(abs(x - y) for x, y in zip(a, b)) < 1e-5


def convert(model, to, out):
    return tiny.run("convert", "-m", model, "--to", to, "-o", out)


def main():
    work = tiny.work_dir()
    for name, to, other in (("openclip_tok", "openclip", "hf"), ("hf_siglip_half", "hf", None),
                            ("openclip_xlmr", "openclip", None),
                            ("openclip_bert_bare_half", "openclip", None)):
        source, run = f"{FORMATS}/{name}", f"{work}/logs/{name}"
        before = vector(source)
        result = convert(source, to, f"{work}/{name}")
        tiny.check(f"{name}: converts to its own layout", result.returncode == 0, result.stderr)
        tiny.check(f"{name}: the same vectors", near(before, vector(f"{work}/{name}")))
        result = tiny.run("train", "--train-data", f"{work}/tiny.tar", "--model", source, "--logs",
                          f"{work}/logs", "--name", name, "--batch-size", 8, "--lr", 1e-3,
                          "--steps", 6, "--seed", 1, "--quiet")
        tiny.check(f"{name}: trains", result.returncode == 0, result.stderr)
        after = vector(f"{run}/model")
        tiny.check(f"{name}: training changed it", not near(before, after))
        result = convert(f"{run}/model", other or to, f"{work}/{name}-trained")
        tiny.check(f"{name}: what was trained converts", result.returncode == 0, result.stderr)
        tiny.check(f"{name}: the same vectors still", near(after, vector(f"{work}/{name}-trained")))
    result = convert(f"{FORMATS}/hf_siglip", "openclip", f"{work}/never")
    tiny.check("a layout that cannot say it", result.returncode == 1 and
               b"no timm model" in result.stderr and not os.path.exists(f"{work}/never"),
               result.stderr)
    source = os.path.join(tiny.ROOT, "tests/fixtures/sentence/st_dense")
    result = convert(source, "hf", f"{work}/st_dense")
    tiny.check("a text-only model converts to its own layout", result.returncode == 0,
               result.stderr)
    tiny.check("the same vectors of texts", near(vector(source), vector(f"{work}/st_dense")))
    result = convert(source, "openclip", f"{work}/never")
    tiny.check("and to no other", result.returncode == 1 and b"text tower alone" in result.stderr
               and not os.path.exists(f"{work}/never"), result.stderr)
    result = convert(f"{FORMATS}/hf_clip", "hf", f"{work}/openclip_tok")
    tiny.check("nothing is overwritten", result.returncode == 1 and b"not empty" in result.stderr,
               result.stderr)
    tiny.remove(work)
    tiny.finish()


if __name__ == "__main__":
    main()
