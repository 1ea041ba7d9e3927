#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Pillow's rate of decode + resize + normalise: the rival's side of the decoding bench.

    pillow_decode.py SHARD... [--size 224] [--seconds 5] [--processes N]

Pictures of WebDataset shards are read into memory first; then each goes from its bytes to a
(3,S,S) f32 array: decoded, composited on white, shorter side resized to S (bicubic), centre
cropped, normalised.  Prints one line of JSON.
"""
import argparse
import io
import json
import multiprocessing
import os
import tarfile
import time

import numpy as np
import PIL
from PIL import Image

MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)


def transform(data, size):
    image = Image.open(io.BytesIO(data))
    if image.mode != 'RGB':
        image = image.convert('RGBA')
        canvas = Image.new('RGBA', image.size, 'white')
        canvas.alpha_composite(image)
        image = canvas.convert('RGB')
    ratio = size / min(image.size)
    width, height = (max(size, int(side * ratio)) for side in image.size)
    image = image.resize((width, height), Image.BICUBIC)
    left, top = (width - size) // 2, (height - size) // 2
    pixels = np.asarray(image.crop((left, top, left + size, top + size)), np.float32)
    return ((pixels / 255 - MEAN) / STD).transpose(2, 0, 1)


def work(pictures, size, seconds, ready):
    ready.wait()
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        transform(pictures[done % len(pictures)], size)
        done += 1
    return done / (time.perf_counter() - start)


def run(arguments):
    return work(*arguments, READY)


def main():
    global READY
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('shards', nargs='+')
    parser.add_argument('--size', type=int, default=224)
    parser.add_argument('--seconds', type=float, default=5)
    parser.add_argument('--processes', type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    pictures = []
    for shard in options.shards:
        with tarfile.open(shard) as tar:
            pictures += [tar.extractfile(m).read() for m in tar
                         if m.name.endswith(('.png', '.jpg', '.jpeg', '.webp'))]
    n = options.processes
    READY = multiprocessing.Barrier(n)
    with multiprocessing.Pool(n) as pool:
        rates = pool.map(run, [(pictures[i::n], options.size, options.seconds) for i in range(n)],
                         chunksize=1)
    print(json.dumps({'rival': 'pillow', 'version': PIL.__version__, 'size': options.size,
                      'processes': n, 'pictures': len(pictures),
                      'pictures_per_s': round(sum(rates), 1)}))


if __name__ == '__main__':
    main()
