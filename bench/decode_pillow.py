#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Decode + resize + normalise, Tessera against Pillow: same pictures, cores and output.

    bench/decode_pillow.py --ours build/bench/decode [--out bench/results/decode.json]

Pictures come from Tux Paint's stamps: `jpeg` holds 500x375 JPEGs (quality 90, 4:2:0) cut from the
larger ones, `png` the stamps as they are.  Both sides read the files into memory first, then go from
bytes to a (3,S,S) f32 array as often as they can for some seconds; rounds alternate.  Pillow runs in
processes (no interpreter lock between them), without draft() and reducing_gap, which change pixels,
and its normalisation is one multiplication and one addition into a reused array.  The sums of both
sides' outputs must agree.
"""
import argparse, io, json, multiprocessing, os, statistics, subprocess, tempfile, time

import numpy as np
import PIL
from PIL import Image

STAMPS = "/usr/share/tuxpaint/stamps"
MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32).reshape(3, 1, 1)
STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32).reshape(3, 1, 1)
SCALE, SHIFT = 1 / (255 * STD), -MEAN / STD


def stamps():
    for folder, _, files in sorted(os.walk(STAMPS)):
        for name in sorted(files):
            if name.endswith(".png") and "_mirror" not in name:
                yield os.path.join(folder, name)


def flat(image):
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGB", image.size, (255, 255, 255))
        white.paste(image, mask=image.getchannel("A"))
        return white
    return image.convert("RGB")


def make_pictures(folder):
    """Photographs fill the frame: the middle of each large stamp, over its mean colour, with a
    little sensor noise, so that the entropy coder has the work that it has with real pictures."""
    noise = np.random.default_rng(1)
    os.makedirs(f"{folder}/jpeg")
    os.makedirs(f"{folder}/png")
    for i, path in enumerate(stamps()):
        image = Image.open(path)
        with open(path, "rb") as f, open(f"{folder}/png/{i:04}.png", "wb") as g:
            g.write(f.read())
        if image.width * image.height < 60000:
            continue
        image = flat(image)
        scale = max(500 / image.width, 375 / image.height)
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.BICUBIC)
        left, top = (image.width - 500) // 2, (image.height - 375) // 2
        pixels = np.asarray(image.crop((left, top, left + 500, top + 375)), np.float32)
        pixels = np.clip(pixels + noise.normal(0, 4, pixels.shape), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(f"{folder}/jpeg/{i:04}.jpg", quality=90)


def transform(data, size, out):
    image = flat(Image.open(io.BytesIO(data)))
    w, h = image.size
    w, h = (size, int(size * h / w)) if w <= h else (int(size * w / h), size)
    if (w, h) != image.size:
        image = image.resize((w, h), Image.BICUBIC)
    left, top = round((w - size) / 2), round((h - size) / 2)
    image = image.crop((left, top, left + size, top + size))
    np.multiply(np.asarray(image).transpose(2, 0, 1), SCALE, out=out)
    out += SHIFT


def work(pictures, first, step, size, seconds, barrier, results):
    out = np.empty((3, size, size), np.float32)
    total = 0.0
    for i in range(first, len(pictures), step):
        transform(pictures[i], size, out)
        total += float(out.sum(dtype=np.float64))
    barrier.wait()
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        transform(pictures[(first + done * step) % len(pictures)], size, out)
        done += 1
    results.put((done / (time.perf_counter() - start), total))


def pillow(pictures, n, size, seconds):
    barrier, results = multiprocessing.Barrier(n), multiprocessing.Queue()
    workers = [multiprocessing.Process(target=work, args=(pictures, i, n, size, seconds, barrier, results))
               for i in range(n)]
    for w in workers:
        w.start()
    found = [results.get() for _ in workers]
    for w in workers:
        w.join()
    return sum(f[0] for f in found), sum(f[1] for f in found)


def ours(binary, folder, n, size, seconds):
    line = subprocess.run([binary, folder, str(n), str(seconds), str(size)], check=True,
                          capture_output=True, text=True).stdout
    return json.loads(line)


def compare(folder, kind, options):
    names = sorted(os.listdir(f"{folder}/{kind}"))
    pictures = [open(f"{folder}/{kind}/{n}", "rb").read() for n in names]
    a, b, row = [], [], {}
    for _ in range(options.rounds):
        row = ours(options.ours, f"{folder}/{kind}", options.threads, options.size, options.seconds)
        a.append(row["pictures_per_s"])
        rate, total = pillow(pictures, options.threads, options.size, options.seconds)
        b.append(rate)
        if abs(total - row["output_sum"]) > 1e-6 * len(pictures) * 3 * options.size ** 2:
            raise SystemExit(f"{kind}: outputs differ: {row['output_sum']} and {total}")
    median = statistics.median
    return {"pictures": kind, "n": len(pictures), "mean_bytes": row["mean_bytes"],
            "mean_pixels": row["mean_pixels"], "size": options.size, "threads": options.threads,
            "isa": row["isa"], "tessera_per_s": median(a), "tessera_all": a,
            "pillow_per_s": round(median(b), 1), "pillow_all": [round(x, 1) for x in b],
            "times_pillow": round(median(x / y for x, y in zip(a, b)), 2)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ours", required=True, help="the program built from bench/decode.c")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", help="also write the result here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make_pictures(folder)
        result = {"bench": "decode", "pillow": PIL.__version__,
                  "rows": [compare(folder, kind, options) for kind in ("jpeg", "png")]}
    text = json.dumps(result, indent=1)
    print(text)
    if options.out:
        with open(options.out, "w") as f:
            f.write(text + "\n")


if __name__ == "__main__":
    main()
