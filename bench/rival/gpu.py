#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""PyTorch's sides of the GPU benches (bench/gpu_run.py), as processes that wait.

    gpu.py train CONFIG WEIGHTS DEVICE BATCH DATA      eager-full, compile-short, start-eager-full, ..
    gpu.py contrast DEVICE BATCH WIDTH DATA            f32, tf32, bf16, compile-bf16
    gpu.py embed CONFIG WEIGHTS DEVICE BATCH DATA      eager, compile, jpeg, vectors
    gpu.py search DEVICE ROWS WIDTH K QUERIES DATA     f32-64, tf32-64, bf16-64, .., hits

The first line says the versions; then lines "CASE N" are each answered with a line of JSON, as
bench/gpu_*.c do, which describe DATA.  "rest 1" gives unused memory back to the card.  Training is
what OpenCLIP's --precision amp_bf16 does: f32 weights, autocast to bf16, fused AdamW.
"""
import argparse
import contextlib
import gc
import json
import os
import sys
import time

import numpy as np
import torch

import gpu_towers

LR = 1e-4


def wait(device):
    if device.type == 'cuda':
        torch.cuda.synchronize()


def host(array, device):
    """A tensor of the host's memory, pinned where there is a card."""
    tensor = torch.from_numpy(np.array(array))
    return tensor.pin_memory() if device.type == 'cuda' else tensor


def mapped(options, name, dtype, *shape):
    return np.memmap(os.path.join(options.data, name), dtype, 'r', shape=shape)


def timed(device, n, call):
    """Milliseconds a call of n, and what the last gave."""
    wait(device)
    start, last = time.perf_counter(), None
    for _ in range(n):
        last = call()
    wait(device)
    return 1e3 * (time.perf_counter() - start) / n, last


class Train:
    def __init__(self, options):
        self.o, self.device = options, options.device
        with open(options.config, encoding='utf-8') as f:
            model = json.load(f)['model_cfg']
        side, length = model['vision_cfg']['image_size'], model['text_cfg']['context_length']
        self.pictures = host(mapped(options, 'pictures.u8', np.uint8, options.batch, side, side, 3),
                             self.device)
        self.tokens = {name: host(mapped(options, name + '.tokens', np.int32, options.batch, length),
                                  self.device) for name in ('full', 'short')}
        self.model = gpu_towers.towers(options.config, self.device)
        self.modules = {'eager': self.model,
                        'compile': torch.compile(self.model, dynamic=False)
                        if hasattr(torch, 'compile') else None}
        self.renew()

    def renew(self):
        """An optimizer that has seen nothing."""
        decayed = [p for p in self.model.parameters() if p.ndim > 1]
        others = [p for p in self.model.parameters() if p.ndim <= 1]
        fused = {'fused': True} if self.device.type == 'cuda' else {}
        self.optimizer = torch.optim.AdamW(
            [{'params': decayed, 'weight_decay': 0.2}, {'params': others, 'weight_decay': 0.0}],
            lr=LR, betas=(0.9, 0.98), eps=1e-6, **fused)

    def step(self, module, tokens):
        pictures = self.pictures.to(self.device, non_blocking=True)
        tokens = tokens.to(self.device, non_blocking=True).long()
        with torch.autocast(self.device.type, torch.bfloat16):
            loss = module(pictures, tokens)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            self.model.logit_scale.clamp_(0, 4.6052)
        return loss.detach()

    def answer(self, case, n):
        if case.startswith('start-'):
            self.model.load_state_dict(gpu_towers.read_weights(self.o.weights))
            self.renew()
            case = case[len('start-'):]
        mode, name = case.split('-')
        losses = []
        if self.device.type == 'cuda':
            torch.cuda.reset_peak_memory_stats()
        ms, _ = timed(self.device, n, lambda: losses.append(
            self.step(self.modules[mode], self.tokens[name])))
        peak = torch.cuda.max_memory_allocated() / 1e6 if self.device.type == 'cuda' else None
        return {'losses': [round(float(x), 6) for x in losses], 'ms': ms, 'peak_mb': peak}


class Contrast:
    def __init__(self, options):
        self.device = options.device
        features = mapped(options, 'features.f32', np.float32, 2, options.batch, options.width)
        self.x = [torch.from_numpy(np.array(f)).to(self.device).requires_grad_() for f in features]
        self.scale = torch.tensor(2.6592, device=self.device, requires_grad=True)
        self.compiled = torch.compile(gpu_towers.contrast) if hasattr(torch, 'compile') else None

    def call(self, mode):
        loss = self.compiled if mode.startswith('compile') else gpu_towers.contrast
        narrow = torch.autocast(self.device.type, torch.bfloat16)
        with narrow if mode.endswith('bf16') else contextlib.nullcontext():
            out = loss(*self.x, self.scale.exp())
        for x in [*self.x, self.scale]:
            x.grad = None
        out.backward()
        return out.detach()

    def answer(self, case, n):
        torch.backends.cuda.matmul.allow_tf32 = case == 'tf32'
        for x in self.x:
            x.grad = None
        before = torch.cuda.memory_allocated() if self.device.type == 'cuda' else 0
        if self.device.type == 'cuda':
            torch.cuda.reset_peak_memory_stats()
        ms, loss = timed(self.device, n, lambda: self.call(case))
        beside = None
        if self.device.type == 'cuda':
            gradients = sum(x.numel() * 4 for x in self.x)
            beside = (torch.cuda.max_memory_allocated() - before - gradients) / 1e6
        return {'ms': ms, 'loss': float(loss), 'workspace_mb': beside}


class Embed:
    def __init__(self, options):
        self.o, self.device = options, options.device
        with open(options.config, encoding='utf-8') as f:
            self.side = json.load(f)['model_cfg']['vision_cfg']['image_size']
        self.model = gpu_towers.towers(options.config, self.device).to(torch.bfloat16).eval()
        tower = self.model.visual
        self.pictures = host(mapped(options, 'pictures.u8', np.uint8, options.batch, self.side,
                                    self.side, 3), self.device)
        self.modes = {'eager': tower, 'compile': torch.compile(tower, dynamic=False)
                      if hasattr(torch, 'compile') else None}
        self.loader = None

    def vectors(self, tower, pictures):
        with torch.inference_mode():
            found = tower(pictures.to(self.device, non_blocking=True)).float()
            return torch.nn.functional.normalize(found, dim=-1).cpu()

    def folder(self):
        """Every picture of DATA/jpeg by DataLoader, Pillow and the compiled tower."""
        if self.loader is None:
            import gpu_pictures
            self.loader = gpu_pictures.loader(os.path.join(self.o.data, 'jpeg'), self.side,
                                              min(256, self.o.batch), self.device.type == 'cuda')
        tower, n = self.modes['compile'] or self.modes['eager'], 0
        for pictures in self.loader:
            count = pictures.shape[0]
            if count < self.loader.batch_size:  # one shape, so that nothing is compiled again
                more = pictures[:1].expand(self.loader.batch_size - count, -1, -1, -1)
                pictures = torch.cat([pictures, more])
            n += self.vectors(tower, pictures)[:count].shape[0]
        return n

    def answer(self, case, n):
        if case == 'vectors':
            self.model.load_state_dict(gpu_towers.read_weights(self.o.weights))
            return self.vectors(self.modes['eager'], self.pictures)[0, :16].tolist()
        if case == 'jpeg':
            ms, count = timed(self.device, n, self.folder)
            return {'ms': ms, 'pictures': count}
        ms, _ = timed(self.device, n, lambda: self.vectors(self.modes[case], self.pictures))
        return {'ms': ms, 'pictures': self.o.batch}


class Search:
    def __init__(self, options):
        self.o, self.device = options, options.device
        rows = mapped(options, 'rows.f32', np.float32, options.rows, options.width)
        self.rows = {'f32': torch.from_numpy(np.array(rows)).to(self.device)}
        self.rows['tf32'] = self.rows['f32']
        self.rows['bf16'] = self.rows['f32'].bfloat16()
        self.queries = host(mapped(options, 'queries.f32', np.float32, options.queries,
                                   options.width), self.device)

    def search(self, mode, n):
        rows = self.rows[mode]
        with torch.inference_mode():
            q = self.queries[:n].to(self.device, non_blocking=True).to(rows.dtype)
            scores, ids = torch.topk(torch.matmul(q, rows.T), self.o.k)
            return scores.cpu(), ids.cpu()

    def answer(self, case, n):
        torch.backends.cuda.matmul.allow_tf32 = case.startswith('tf32')
        if case == 'hits':
            return self.search('f32', n)[1].tolist()
        mode, count = case.split('-')
        return {'ms': [timed(self.device, 1, lambda: self.search(mode, int(count)))[0]
                       for _ in range(n)]}


def rest(device):
    gc.collect()
    if device.type == 'cuda':
        torch.cuda.empty_cache()
    return {}


def serve(side, device):
    about = {'torch': torch.__version__, 'numpy': np.__version__}
    if device.type == 'cuda':
        about.update(cuda=torch.version.cuda, cudnn=torch.backends.cudnn.version(),
                     card=torch.cuda.get_device_name())
    print(json.dumps(about), flush=True)
    for line in sys.stdin:
        case, n = line.split()
        try:
            found = rest(device) if case == 'rest' else side.answer(case, int(n))
        except torch.cuda.OutOfMemoryError as e:
            found = {'error': 'out of memory: ' + str(e).split('\n', maxsplit=1)[0][:200]}
        if 'error' in found:
            rest(device)
        print(json.dumps(found), flush=True)


def main():
    parser = argparse.ArgumentParser(description='PyTorch beside Tessera on a GPU.')
    kinds = parser.add_subparsers(dest='kind', required=True)
    shapes = {'train': (Train, ['config', 'weights', 'device', 'batch', 'data']),
              'contrast': (Contrast, ['device', 'batch', 'width', 'data']),
              'embed': (Embed, ['config', 'weights', 'device', 'batch', 'data']),
              'search': (Search, ['device', 'rows', 'width', 'k', 'queries', 'data'])}
    for name, (_, arguments) in shapes.items():
        sub = kinds.add_parser(name)
        for argument in arguments:
            numbers = ('batch', 'width', 'rows', 'k', 'queries')
            sub.add_argument(argument, type=int if argument in numbers else
                             torch.device if argument == 'device' else str)
    options = parser.parse_args()
    if options.device.type == 'cuda' and not torch.cuda.is_available():
        sys.exit('gpu.py: PyTorch %s sees no CUDA card' % torch.__version__)
    torch.manual_seed(0)
    serve(shapes[options.kind][0](options), options.device)


if __name__ == '__main__':
    main()
