#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""tessera plan: bytes by the formulas, presets from ViT-B/32 to 2.5 billion parameters on 8 to 1,024
cards, what is refused and what would fit, and a prediction beside the training that it predicts."""
import json
import re
import resource

import tiny

KINDS = ("weights", "gradients", "masters", "moments", "arena", "scratch", "wire", "inputs")
STATES = KINDS[:4]
WAYS = ("off", "selective", "full")
# OpenCLIP's own counts of its models.
PARAMETERS = {"ViT-B-32": 151277313, "ViT-B-16": 149620737, "ViT-L-14": 427616513,
              "ViT-H-14": 986109441}
CLUSTER = dict(name="two cores", ranks=2, memory_gb=8, tflops_f32=0.5, tflops_bf16=1,
               bandwidth_gbs=50, link_gbs=5, link_us=30, disk_read_gbs=2, disk_write_gbs=1)


def plan(*args, **options):
    result = tiny.run("plan", "--json", *args, **options)
    if result.returncode != 0 and not result.stdout:
        tiny.check(f"plan {args}", False, result.stderr)
        return None
    return json.loads(result.stdout)


def row(p, zero, recompute="off"):
    return next(r for r in p["plans"] if r["zero"] == zero and r["recompute"] == recompute)


def near(a, b, part):
    return abs(a - b) <= part * abs(b)


def expected(params, zero, ranks, grad_bytes):
    """Bytes of a rank's states in bf16: weights, gradients, masters, moments."""
    part = [1 / ranks if zero >= stage else 1 for stage in (3, 2, 1, 1)]
    return [params * n * p for n, p in zip((2, grad_bytes, 4, 8), part)]


def formulas(work):
    """16P, 4P+12P/N, 2P+14P/N, 16P/N; tensors are filled to 64 bytes, 0.1 % at most, and what is no
    matrix, 0.2 % of the parameters, every rank holds whole."""
    for ranks in (1, 3, 64):
        for dtype, grad in (("bf16", 2), ("f32", 4)):
            p = plan("--model", "ViT-B-32", "--cluster", f"h200x{ranks}", "--batch-size", 8,
                     "--grad-dtype", dtype, "--recompute", "off")
            for zero in range(4):
                r, n = row(p, zero), p["parameters"]
                want = expected(n, zero, ranks, grad)
                have = [r["bytes"][k] for k in STATES]
                tiny.check(f"states: ZeRO {zero}, {ranks} ranks, gradients {dtype}",
                           all(0.999 * b <= a <= 1.001 * b + 0.003 * n * size
                               for a, b, size in zip(have, want, (2, grad, 4, 8))), (have, want))
                tiny.check("kinds add up", abs(r["bytes"]["total"] -
                           sum(r["bytes"][k] for k in KINDS)) <= len(KINDS), r["bytes"])
                most = 3 * 4 * ranks * 8 * 512 * 4  # of both towers, for the loss and for its gradient
                features = row(p, 0)["wire_bytes"] - 2 * grad * n * (ranks - 1) / ranks
                states = (2 * grad, grad + 2, grad + 2, grad + 4)[zero] * n * (ranks - 1) / ranks
                tiny.check(f"wire: ZeRO {zero}, {ranks} ranks, gradients {dtype}",
                           near(r["wire_bytes"], states + features, 1e-3) and
                           -1 <= features <= most, (r["wire_bytes"], states, features))
    path = cluster(work)
    p = plan("--model", "ViT-B-32", "--cluster", path, "--precision", "fp32", "--batch-size", 8)
    have = [row(p, 0)["bytes"][k] / p["parameters"] for k in STATES]
    tiny.check("f32: no masters beside the weights",
               all(near(a, b, 1e-3) for a, b in zip(have, (4, 4, 0, 8))), have)
    twice = plan("--model", "ViT-B-32", "--cluster", path, "--precision", "fp32", "--batch-size", 8,
                 "--accum-freq", 4)
    tiny.check("summed once an update until gradients are divided",
               row(twice, 0)["wire_bytes"] < 1.1 * row(p, 0)["wire_bytes"] and
               row(twice, 2)["wire_bytes"] > 2 * row(p, 2)["wire_bytes"])


def processor_seconds():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def presets():
    for name, params in PARAMETERS.items():
        p = plan("--model", name, "--cluster", "h200x8", "--batch-size", 64)
        tiny.check(f"{name}: OpenCLIP's number of parameters", p["parameters"] == params,
                   p["parameters"])
    last = None
    for ranks in (8,) if "asan" in tiny.BUILD else (8, 128, 1024):
        begin = processor_seconds()
        p = plan("--model", "bletchley-2.5B", "--cluster", f"h200x{ranks}", "--batch-size", 64)
        took = processor_seconds() - begin
        tiny.check(f"2.5 billion parameters on {ranks} cards", p["best"] is not None and
                   near(p["parameters"], 2.5e9, 0.02), p["parameters"])
        tiny.check("and quickly", took < (60 if "asan" in tiny.BUILD else 6), took)
        if last:
            for zero in range(1, 4):
                for recompute in WAYS:
                    a, b = (sum(row(x, zero, recompute)["bytes"][k] for k in STATES)
                            for x in (last, p))
                    tiny.check(f"ZeRO {zero}: more ranks, fewer bytes of states", b < a, (a, b))
        for zero in range(3):
            for recompute in WAYS:
                a, b = (row(p, z, recompute)["bytes"]["total"] for z in (zero, zero + 1))
                tiny.check(f"{ranks} ranks: no stage needs more than the one before", b <= a)
        a, b = (row(p, 0, x) for x in ("off", "full"))
        tiny.check("recompute: less memory, more time", row(p, 0, "selective")["bytes"]["arena"] <
                   0.8 * a["bytes"]["arena"] and b["bytes"]["arena"] < 0.5 * a["bytes"]["arena"] and
                   b["seconds"]["step"] > a["seconds"]["step"])
        last = p
    usage = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    tiny.check("no weights in memory", usage < (4000 if "asan" in tiny.BUILD else 600), usage)


def cluster(work, name="cluster.json", **more):
    path = f"{work}/{name}"
    with open(path, "w", encoding="utf-8") as f:
        json.dump({k: v for k, v in {**CLUSTER, **more}.items() if v is not None}, f)
    return path


def times(work):
    """A step's seconds from the file's figures."""
    args = ("--model", "ViT-B-32", "--precision", "fp32", "--batch-size", 16, "--recompute", "off")
    base = row(plan(*args, "--cluster", cluster(work)), 0)
    tiny.check("seconds add up", near(base["seconds"]["step"], sum(
        base["seconds"][k] for k in ("compute", "memory", "wire", "disk")), 1e-9))
    tiny.check("a step is longer than its operations take",
               base["seconds"]["step"] > base["flops"] / 0.5e12)
    tiny.check("and as many as three forward passes have", near(base["flops"], 16 * 44.3e9, 0.05),
               base["flops"])
    wire = base["wire_bytes"] / 5e9
    tiny.check("the wire's seconds", near(base["seconds"]["wire"], wire, 0.01), base["seconds"])
    for what, more, bound in (("fast link", {"link_gbs": 5e3}, "compute"),
                              ("slow link", {"link_gbs": 0.01}, "wire"),
                              ("slow memory", {"bandwidth_gbs": 0.5}, "memory")):
        r = row(plan(*args, "--cluster", cluster(work, **more)), 0)
        tiny.check(f"{what}: bound by {bound}", r["bound"] == bound, r)
    r = row(plan(*args, "--cluster", cluster(work, disk_write_gbs=0.01), "--offload"), 0)
    tiny.check("states in files: bound by the disk", r["bound"] == "disk" and
               r["bytes"]["moments"] == 0 and near(r["disk_bytes"], 16 * 151277313, 1e-3), r)
    r = row(plan(*args, "--cluster", cluster(work, overlap=1)), 0)
    tiny.check("a wire behind the computing is hidden", r["seconds"]["wire"] == 0, r["seconds"])
    rates = [{"op": "linear", "dtype": "f32", "flops": 1e9, "bytes": 1e6, "seconds": 10}]
    slow = row(plan(*args, "--cluster", cluster(work, rates=rates)), 0)
    tiny.check("a measured rate goes before the figures",
               slow["seconds"]["step"] > 100 * base["seconds"]["step"], slow["seconds"])


def refused(what, pattern, *args, code=1):
    result = tiny.run("plan", *args)
    tiny.check(what, result.returncode == code and re.search(pattern, result.stderr.decode()) and
               not tiny.complaint(result), (result.returncode, result.stderr))


def refusals(work):
    path = cluster(work)
    model = ("--model", "ViT-B-32")
    refused("no model", "needs --model", "--cluster", "h200x8", code=2)
    refused("no cluster", "needs --cluster", *model, code=2)
    refused("an unknown model", "no model ViT-X.*ViT-B-32", "--model", "ViT-X", "--cluster", path,
            code=2)
    for name in ("h200", "h900x8", "h200x0", "h200x8x", "nothing.json"):
        refused(f"cluster {name}", "there is no cluster.*h200x8", *model, "--cluster", name)
    for what, more, pattern in (
            ("an unknown key", {"tflop": 1}, "tflop"), ("no memory", {"memory_gb": None}, "memory_gb"),
            ("no link", {"link_gbs": None}, "link_gbs"),
            ("no network", {"ranks_per_host": 1}, "net_gbs"),
            ("a negative rate", {"bandwidth_gbs": -1}, "bandwidth_gbs"),
            ("rates of nothing", {"rates": [{"op": "linear"}]}, r"rates\[0\]"),
            ("rates that are no list", {"rates": 3}, "rates: expected an array"),
            ("a device that there is not", {"device": "tpu"}, "tpu")):
        refused(what, pattern, *model, "--cluster", cluster(work, "bad.json", **more))
    refused("captions longer than the model takes", "takes 77", *model, "--cluster", path,
            "--tokens", 78)
    refused("texts against texts with one caption", "captions-per-image", "--model",
            "bletchley-B-16", "--cluster", path, "--captions-per-image", 1)
    refused("more ranks than the file has a network for", "net_gbs", *model, "--cluster", path,
            "--ranks", 4)
    refused("states in files without a disk", "disk_read_gbs", *model, "--offload", "--cluster",
            cluster(work, "bad.json", disk_read_gbs=None))
    refused("measuring to nowhere", "--output", *model, "--measure", code=2)


def advice(work):
    """What would fit does, and a little less would not."""
    args = ("--model", "ViT-L-14", "--cluster", "h200x8")
    result = tiny.run("plan", "--batch-size", 64, "--memory-gb", 2.5, *args)
    text = result.stderr.decode()
    found = re.search(r"nothing fits 2.5 GB a rank: it would with ([\d.]+) GB, with --batch-size (\d+)"
                      r", on (\d+) ranks, with --offload", text)
    if not tiny.check("what would fit is said", result.returncode == 1 and found and
                      b"ZeRO recompute" in result.stdout, text):
        return
    memory, batch, ranks = float(found[1]), int(found[2]), int(found[3])
    for good, b, gb, more in (
            (True, 64, memory, ()), (False, 64, memory * 0.999, ()),
            (True, batch, 2.5, ()), (False, batch * 5 // 4, 2.5, ()),
            (True, 64, 2.5, ("--ranks", ranks)), (False, 64, 2.5, ("--ranks", ranks // 2)),
            (True, 64, 2.5, ("--offload",))):
        p = plan("--batch-size", b, "--memory-gb", gb, *args, *more)
        tiny.check(f"{b} in {gb} GB {more}: {'fits' if good else 'does not fit'}",
                   p and (p["best"] is not None) == good)


def table():
    text = tiny.run("plan", "--model", "ViT-B-32", "--cluster", "h200x8").stdout.decode()
    tiny.check("a table of twelve ways, one of them the best",
               len(re.findall(r"^[* -] +[0-3] +(?:off|selective|full) ", text, re.M)) == 12 and
               len(re.findall(r"^\*", text, re.M)) == 2, text)
    text = tiny.run("plan", "--model", "ViT-B-32", "--cluster", "h200x8", "--zero", 2,
                    "--recompute", "full").stdout.decode()
    tiny.check("or of one", len(re.findall(r"^[* -] +2 +full ", text, re.M)) == 1, text)


def against_training(work):
    """A tiny run: bytes that the trainer says it holds within 5 %, and a step's seconds within a
    factor that a busy machine leaves."""
    for way, more in zip(WAYS, ((), ("--recompute-activations",), ("--grad-checkpointing",))):
        name = "measured" + "".join(more)
        result = tiny.run(*tiny.train_args(work, name, "--log-every-n-steps", 1, *more))
        tiny.check("training", result.returncode == 0, result.stderr)
        with open(f"{work}/logs/{name}/metrics.jsonl", encoding="utf-8") as f:
            lines = [json.loads(line) for line in f]
        measured = lines[-1]
        tokens = ("--tokens", measured["train/tokens"])
        here = f"{work}/here.json"
        result = tiny.run("plan", "--model", f"{work}/model.json", "--batch-size", 8, "--measure",
                          "--seconds", 0.2, "-o", here, *tokens)
        tiny.check("measuring", result.returncode == 0, result.stderr)
        p = plan("--model", f"{work}/model.json", "--batch-size", 8, "--cluster", here, "--zero", 0,
                 "--recompute", way, *tokens)
        r = p["plans"][0]
        states = sum(r["bytes"][k] for k in STATES)
        tiny.check("states as predicted", near(states, measured["train/state_bytes"], 0.001),
                   (states, measured))
        work_bytes = r["bytes"]["arena"] + r["bytes"]["scratch"]
        tiny.check("workspace as predicted", near(work_bytes, measured["train/work_bytes"], 0.05),
                   (work_bytes, measured))
        seconds = sorted(line["train/batch_time"] for line in lines)[len(lines) // 2]
        tiny.check("seconds within ten times", 0.1 < r["seconds"]["step"] / seconds < 10,
                   (r["seconds"], seconds))


def main():
    work = tiny.work_dir()
    try:
        formulas(work)
        presets()
        times(work)
        refusals(work)
        advice(work)
        table()
        against_training(work)
    finally:
        tiny.remove(work)
    tiny.finish()


main()
