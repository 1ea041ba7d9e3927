#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""PyTorch's training rate on the emoji recipe: the rival's side of the throughput bench.

    emoji_train.py prepare DATA CACHE       /usr/bin/python3; DATA is what recipes/emoji made
    emoji_train.py train CACHE --mode MODE  any PyTorch from 1.13 on; prints one line of JSON

Model, batch and captions: pictures of 48x48 in 6x6 patches of 8 pixels, four pre-norm blocks of
width 192 (3 heads, hidden 768, ReLU), mean pooling; two such blocks over at most 20 tokens; 128
joint dimensions; 512 pictures a step with two captions each; softmax contrast of picture with
caption (both captions) and of caption with caption; AdamW, gradients clipped at norm 1.

Whatever makes PyTorch faster without changing that is used where the release has it: fused
attention, fused AdamW, inductor.  Modes: f32, bf16 (autocast), compile, compile-bf16.  Captions are
tokenized and pictures decoded beforehand, which spares PyTorch work that Tessera does in the step.
"""
import argparse
import contextlib
import json
import os
import resource
import sys
import tarfile
import time

import numpy as np

STORED, IMAGE, PATCH, WIDTH, HEADS, HIDDEN, JOINT = 64, 48, 8, 192, 3, 768, 128
TOKENS, BATCH, EOS, PADDING = 20, 512, 2, 0
MIN_STEPS = 3
MODES = ('f32', 'bf16', 'compile', 'compile-bf16')


# ---- preparing -----------------------------------------------------------------------------

def prepare(data, cache):
    """pictures.npy (N,3,48,48) f32; ids.npy, one run of tokens; spans.npy, where captions begin;
    owners.npy, where each picture's captions begin."""
    import io
    import sentencepiece
    from PIL import Image
    pieces = sentencepiece.SentencePieceProcessor(model_file=os.path.join(data, 'spm.model'))
    with open(os.path.join(data, 'dataset.json'), encoding='utf-8') as f:
        shards = json.load(f)['shards']
    pictures, ids, spans, owners = [], [], [0], [0]
    for shard in shards:
        with tarfile.open(os.path.join(data, shard)) as tar:
            for member in tar:
                content = tar.extractfile(member).read()
                if member.name.endswith('.png'):
                    image = Image.open(io.BytesIO(content)).convert('RGBA')
                    canvas = Image.new('RGBA', image.size, 'white')
                    canvas.alpha_composite(image)
                    small = canvas.convert('RGB').resize((STORED, STORED), Image.BICUBIC)
                    pictures.append(np.asarray(small.resize((IMAGE, IMAGE), Image.BILINEAR)))
                else:
                    for text in json.loads(content)['captions'].values():
                        ids.extend(pieces.encode(text)[:TOKENS - 1] + [EOS])
                        spans.append(len(ids))
                    owners.append(len(spans) - 1)
    os.makedirs(cache, exist_ok=True)
    stack = np.stack(pictures).transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1
    for name, array in (('pictures', stack), ('ids', np.array(ids, np.int32)),
                        ('spans', np.array(spans, np.int64)),
                        ('owners', np.array(owners, np.int64))):
        np.save(os.path.join(cache, name + '.npy'), array)
    with open(os.path.join(cache, 'vocabulary.json'), 'w', encoding='utf-8') as f:
        json.dump({'pieces': pieces.get_piece_size()}, f)
    print('%d pictures, %d captions' % (len(pictures), len(spans) - 1))


class Batches:
    """Random batches: (pictures (B,3,48,48), tokens (2B,T)), the second half other captions."""

    def __init__(self, cache, seed, full_length):
        import torch
        pictures, self.ids, self.spans, self.owners = (
            np.load(os.path.join(cache, n + '.npy')) for n in ('pictures', 'ids', 'spans', 'owners'))
        self.pictures = torch.from_numpy(pictures)
        self.random, self.full_length = np.random.default_rng(seed), full_length
        self.n_tokens = 0

    def next(self):
        import torch
        rng, margin = self.random, 3
        chosen = rng.choice(len(self.pictures), BATCH, replace=False)
        padded = torch.nn.functional.pad(self.pictures[torch.from_numpy(chosen)], (margin,) * 4,
                                         value=1.)
        y, x = rng.integers(0, 2 * margin + 1, 2)
        shifted = padded[:, :, y:y + IMAGE, x:x + IMAGE]
        count = self.owners[chosen + 1] - self.owners[chosen]
        first = (rng.random(BATCH) * count).astype(np.int64)
        second = (first + 1 + (rng.random(BATCH) * (count - 1)).astype(np.int64)) % count
        captions = np.concatenate([self.owners[chosen] + first, self.owners[chosen] + second])
        lengths = self.spans[captions + 1] - self.spans[captions]
        self.n_tokens += int(lengths.sum())
        n = TOKENS if self.full_length else int(lengths.max())
        tokens = np.full((2 * BATCH, n), PADDING, np.int64)
        for row, (caption, length) in enumerate(zip(captions, lengths)):
            begin = self.spans[caption]
            tokens[row, :length] = self.ids[begin:begin + length]
        return shifted, torch.from_numpy(tokens)


# ---- the model -----------------------------------------------------------------------------

def build_model(n_pieces):
    import torch
    from torch import nn
    from torch.nn import functional as F
    fused = getattr(F, 'scaled_dot_product_attention', None)

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.project_in = nn.Linear(WIDTH, 3 * WIDTH)
            self.project_out = nn.Linear(WIDTH, WIDTH)

        def forward(self, x, bias):
            batch, length, _ = x.shape
            shape = (batch, length, 3, HEADS, WIDTH // HEADS)
            q, k, v = self.project_in(x).view(shape).permute(2, 0, 3, 1, 4).unbind(0)
            if fused is not None:
                mixed = fused(q, k, v, attn_mask=None if bias is None else bias.to(q.dtype))
            else:
                score = q @ k.transpose(-2, -1) / (WIDTH // HEADS) ** 0.5
                mixed = (score if bias is None else score + bias).softmax(-1) @ v
            return self.project_out(mixed.transpose(1, 2).reshape(batch, length, WIDTH))

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm_1, self.norm_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
            self.attention = Attention()
            self.mlp = nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, WIDTH))

        def forward(self, x, bias=None):
            x = x + self.attention(self.norm_1(x), bias)
            return x + self.mlp(self.norm_2(x))

    class Tower(nn.Module):
        """Blocks, norm and projection to the joint space, over what a subclass embeds."""

        def __init__(self, n_blocks, n_positions):
            super().__init__()
            self.positions = nn.Parameter(torch.randn(n_positions, WIDTH) * .02)
            self.blocks = nn.ModuleList(Block() for _ in range(n_blocks))
            self.norm, self.project = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, JOINT, bias=False)

        def joint(self, pooled):
            return F.normalize(self.project(self.norm(pooled)).float(), dim=-1)

    class Vision(Tower):
        def __init__(self):
            super().__init__(4, (IMAGE // PATCH) ** 2)
            self.patches = nn.Conv2d(3, WIDTH, PATCH, PATCH)

        def forward(self, pictures):
            x = self.patches(pictures).flatten(2).transpose(1, 2) + self.positions
            for block in self.blocks:
                x = block(x)
            return self.joint(x.mean(1))

    class Text(Tower):
        def __init__(self):
            super().__init__(2, TOKENS)
            self.embedding = nn.Embedding(n_pieces, WIDTH)
            nn.init.normal_(self.embedding.weight, std=.02)

        def forward(self, tokens):
            there = tokens != PADDING
            bias = torch.zeros(there.shape).masked_fill(~there, -1e4)[:, None, None, :]
            x = self.embedding(tokens) + self.positions[:tokens.shape[1]]
            for block in self.blocks:
                x = block(x, bias)
            weight = there.float()[..., None]
            return self.joint((x * weight).sum(1) / weight.sum(1))

    class TwoTowers(nn.Module):
        def __init__(self):
            super().__init__()
            self.vision, self.text = Vision(), Text()
            self.log_scales = nn.Parameter(torch.tensor([2.66, 2.66]))

        def forward(self, pictures, tokens):
            image, text = self.vision(pictures), self.text(tokens)
            one, two = text.chunk(2)
            scale = self.log_scales.exp().clamp(max=100)
            return sum(contrast(a, b, s) for a, b, s in (
                (image, one, scale[0]), (image, two, scale[0]), (one, two, scale[1])))

    def contrast(a, b, scale):
        logits, target = scale * a @ b.T, torch.arange(a.shape[0])
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2

    return TwoTowers()


# ---- measuring -----------------------------------------------------------------------------

def train(options):
    import torch
    result = {'rival': 'pytorch', 'version': torch.__version__, 'mode': options.mode,
              'threads': options.threads, 'batch': BATCH}
    compiled, low = options.mode.startswith('compile'), options.mode.endswith('bf16')
    if compiled and not hasattr(torch, 'compile'):
        return {**result, 'unsupported': 'this release has no torch.compile'}
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    with open(os.path.join(options.cache, 'vocabulary.json'), encoding='utf-8') as f:
        model = build_model(json.load(f)['pieces'])
    # One length of text in compiled modes, so that nothing is compiled while the clock runs.
    batches = Batches(options.cache, seed=0, full_length=compiled)
    arguments = {'lr': 1e-3, 'betas': (.9, .98), 'weight_decay': .1}
    try:
        optimizer = torch.optim.AdamW(model.parameters(), fused=True, **arguments)
    except (TypeError, RuntimeError):
        optimizer = torch.optim.AdamW(model.parameters(), **arguments)
    loss_of = torch.compile(model) if compiled else model

    seconds, losses = [], []
    while len(seconds) < options.warmup + MIN_STEPS or (
            sum(seconds[options.warmup:]) < options.seconds):
        if len(seconds) == options.warmup:
            batches.n_tokens = 0
        start = time.perf_counter()
        pictures, tokens = batches.next()
        with torch.autocast('cpu', torch.bfloat16) if low else contextlib.nullcontext():
            loss = loss_of(pictures, tokens)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        seconds.append(time.perf_counter() - start)
    timed = np.array(seconds[options.warmup:])
    rates = BATCH / np.percentile(timed, [50, 90, 10])
    return {**result, 'steps': len(timed), 'warmup': options.warmup,
            'pictures_per_s': round(BATCH * len(timed) / timed.sum(), 1),
            'pictures_per_s_median': round(rates[0], 1),
            'pictures_per_s_p10': round(rates[1], 1), 'pictures_per_s_p90': round(rates[2], 1),
            'tokens_per_step': round(batches.n_tokens / len(timed)),
            'first_loss': round(losses[0], 4), 'last_loss': round(losses[-1], 4),
            'peak_rss_bytes': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest='verb', required=True)
    verb = verbs.add_parser('prepare')
    verb.add_argument('data')
    verb.add_argument('cache')
    verb = verbs.add_parser('train')
    verb.add_argument('cache')
    verb.add_argument('--mode', choices=MODES, default='f32')
    verb.add_argument('--seconds', type=float, default=15, help='of steps behind the warm-up')
    verb.add_argument('--warmup', type=int, default=5, help='steps that are not counted')
    verb.add_argument('--threads', type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    if options.verb == 'prepare':
        prepare(options.data, options.cache)
    else:
        json.dump(train(options), sys.stdout)
        print()


if __name__ == '__main__':
    main()
