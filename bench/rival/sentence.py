#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Sentence embedding, the program beside sentence-transformers and ONNX Runtime, texts a second.

    build/rival/bin/python bench/rival/sentence.py --tessera build/tessera --model DIR --texts FILE

Every side embeds the same texts with the same model on the same cores, one after another in each
round; the sides that pad get the texts sorted by length in batches of the best size of three.  The
program's seconds are those of a run over all texts less those of a run over one.  One JSON object
on standard output.
"""
import argparse
import json
import os
import subprocess
import tempfile
import time

import numpy as np
import torch

BATCHES = (16, 32, 64)


def read_texts(path, n):
    with open(path, encoding='utf-8') as f:
        lines = f.read().splitlines()
    return [json.loads(x)['text'] for x in lines[::max(1, len(lines) // n)][:n]]


def write_texts(path, texts):
    with open(path, 'w', encoding='utf-8') as f:
        for i, text in enumerate(texts):
            f.write(json.dumps({'key': str(i), 'text': text}) + '\n')


def seconds_of(run):
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


class Ours:
    def __init__(self, options, folder, precision, texts):
        self.command = [options.tessera, 'embed', '-q', '-m', options.model, '--precision', precision,
                        '--out', os.path.join(folder, 'out-' + precision), '--texts']
        self.all, self.one = os.path.join(folder, 'all.jsonl'), os.path.join(folder, 'one.jsonl')
        write_texts(self.all, texts)
        write_texts(self.one, texts[:1])

    def seconds(self):
        whole, start = (seconds_of(lambda p=p: subprocess.run(
            self.command + [p], check=True, stdout=subprocess.DEVNULL)) for p in (self.all, self.one))
        return whole - start


class SentenceTransformers:
    def __init__(self, options, dtype, texts):
        from sentence_transformers import SentenceTransformer
        self.model = SentenceTransformer(options.model, device='cpu',
                                         model_kwargs={'torch_dtype': dtype})
        self.texts = sorted(texts, key=len)
        self.batch = min(BATCHES, key=self.with_batch)

    def with_batch(self, batch):
        return seconds_of(lambda: self.model.encode(self.texts, batch_size=batch,
                                                    convert_to_tensor=True))

    def seconds(self):
        return self.with_batch(self.batch)


class Encoder(torch.nn.Module):
    """What is exported: ids and mask in, hidden states out."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask):
        types = torch.zeros_like(input_ids)
        return self.model(input_ids=input_ids, attention_mask=attention_mask,
                          token_type_ids=types).last_hidden_state


class OnnxRuntime:
    def __init__(self, options, folder, texts):
        import onnxruntime
        from transformers import AutoModel, AutoTokenizer
        self.tokenizer = AutoTokenizer.from_pretrained(options.model)
        model = Encoder(AutoModel.from_pretrained(options.model, attn_implementation='eager')).eval()
        path, names = os.path.join(folder, 'model.onnx'), ['input_ids', 'attention_mask']
        batch = self.tokenizer(texts[:2], padding=True, truncation=True, max_length=256,
                               return_tensors='pt')
        axes = {n: {0: 'batch', 1: 'tokens'} for n in names + ['hidden']}
        torch.onnx.export(model, tuple(batch[n] for n in names), path, input_names=names,
                          output_names=['hidden'], dynamic_axes=axes, opset_version=17, dynamo=False)
        set_up = onnxruntime.SessionOptions()
        set_up.intra_op_num_threads = options.threads
        self.session = onnxruntime.InferenceSession(path, set_up, ['CPUExecutionProvider'])
        self.texts = sorted(texts, key=len)
        self.batch = min(BATCHES, key=self.with_batch)

    def encode(self, batch):
        for i in range(0, len(self.texts), batch):
            x = self.tokenizer(self.texts[i:i + batch], padding=True, truncation=True,
                               max_length=256, return_tensors='np')
            hidden = self.session.run(None, {n: x[n].astype(np.int64)
                                             for n in ('input_ids', 'attention_mask')})[0]
            mask = x['attention_mask'][..., None]
            mean = (hidden * mask).sum(1) / mask.sum(1)
            mean /= np.linalg.norm(mean, axis=1, keepdims=True)

    def with_batch(self, batch):
        return seconds_of(lambda: self.encode(batch))

    def seconds(self):
        return self.with_batch(self.batch)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--tessera', required=True)
    parser.add_argument('--model', required=True)
    parser.add_argument('--texts', required=True)
    parser.add_argument('--n', type=int, default=512)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--threads', type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    texts = read_texts(options.texts, options.n)
    with tempfile.TemporaryDirectory() as folder:
        sides = {'tessera bf16': Ours(options, folder, 'bf16', texts),
                 'tessera f32': Ours(options, folder, 'f32', texts),
                 'sentence-transformers f32': SentenceTransformers(options, torch.float32, texts),
                 'sentence-transformers bf16': SentenceTransformers(options, torch.bfloat16, texts),
                 'onnxruntime f32': OnnxRuntime(options, folder, texts)}
        rates = {name: [] for name in sides}
        for _ in range(options.rounds):
            for name, side in sides.items():
                rates[name].append(len(texts) / side.seconds())
        batches = {n: s.batch for n, s in sides.items() if hasattr(s, 'batch')}
    import onnxruntime
    import sentence_transformers
    print(json.dumps({'texts': len(texts), 'rates': rates, 'batches': batches, 'versions': {
        'torch': torch.__version__, 'onnxruntime': onnxruntime.__version__,
        'sentence-transformers': sentence_transformers.__version__}}))


if __name__ == '__main__':
    main()
