# SPDX-License-Identifier: Apache-2.0
"""The GPU benches' processes that wait and are asked in turn, and the files that both sides read."""
import json
import os
import subprocess

import numpy as np

PICTURE = (375, 500)


class LeftOut(Exception):
    """Why a side, or a bench, cannot be measured here."""


class Side:
    """A waiting process: a line of JSON when it is ready, then one for each "CASE N"."""

    def __init__(self, name, command, log):
        self.name, self.command, self.about = name, command, None
        with open(log, 'a', encoding='utf-8') as errors:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                            stderr=errors, text=True)

    def ready(self):
        """Waits until it is."""
        if self.about is None:
            self.about = json.loads(self.read())
        return self

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            raise LeftOut('%s ended with exit status %d: %s' % (self.name, self.process.wait(),
                                                                ' '.join(self.command)))
        return line

    def ask(self, case, n=1):
        self.ready()
        try:
            self.process.stdin.write('%s %d\n' % (case, n))
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # read() says how it ended
        found = json.loads(self.read())
        if isinstance(found, dict) and 'error' in found:
            raise LeftOut('%s, %s: %s' % (self.name, case, found['error']))
        return found

    def close(self):
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


# ---- what they read --------------------------------------------------------------------------

def make(folder, name, write):
    """FOLDER/NAME by write(path), unless it is there."""
    path = os.path.join(folder, name)
    if not os.path.exists(path):
        os.makedirs(folder, exist_ok=True)
        write(path + '.part')
        os.rename(path + '.part', path)
    return path


def unit_rows(n, width, seed):
    rows = np.random.default_rng(seed).standard_normal((n, width), np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def write_rows(n, width, seed):
    """Unit rows, a part at a time."""
    def write(path):
        with open(path, 'wb') as f:
            for i in range(0, n, 1 << 16):
                unit_rows(min(1 << 16, n - i), width, (seed, i)).tofile(f)
    return write


def captions(model, batch, lengths, seed):
    """Token ids (B,T) i32, the end id (the largest) at the end of each, and zeros behind it."""
    text = model['text_cfg']
    rng, length = np.random.default_rng(seed), text['context_length']
    tokens = rng.integers(1, text['vocab_size'] - 2, (batch, length), np.int32)
    at = np.arange(length)
    tokens[at[None] == lengths[:, None] - 1] = text['vocab_size'] - 1
    tokens[at[None] >= lengths[:, None]] = 0
    return tokens


def train_data(folder, model, batch):
    """Noise as pictures and captions: `full` fill the context, `short` have 8 to 32 tokens."""
    side, length = model['vision_cfg']['image_size'], model['text_cfg']['context_length']
    rng = np.random.default_rng(1)
    make(folder, 'pictures.u8', lambda path: rng.integers(
        0, 256, (batch, side, side, 3), np.uint8).tofile(path))
    lengths = {'full': np.full(batch, length, np.int32),
               'short': rng.integers(8, 33, batch, np.int32)}
    for name, of in lengths.items():
        make(folder, name + '.lengths', of.tofile)
        make(folder, name + '.tokens', captions(model, batch, of, 2).tofile)
    return lengths


def write_picture(path, seed):
    """A JPEG of 500 x 375: soft colours with a little noise."""
    from PIL import Image
    rng = np.random.default_rng(seed)
    soft = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8))
    soft = np.asarray(soft.resize(PICTURE[::-1], Image.Resampling.BICUBIC), np.int16)
    noisy = np.clip(soft + rng.normal(0, 6, soft.shape).astype(np.int16), 0, 255)
    Image.fromarray(noisy.astype(np.uint8)).save(path, 'JPEG', quality=90)


def jpegs(folder, n):
    from concurrent.futures import ProcessPoolExecutor
    if not os.path.exists(folder):
        os.makedirs(folder + '.part', exist_ok=True)
        with ProcessPoolExecutor() as pool:
            list(pool.map(write_picture, ['%s.part/%06d.jpg' % (folder, i) for i in range(n)],
                          range(n), chunksize=64))
        os.rename(folder + '.part', folder)
