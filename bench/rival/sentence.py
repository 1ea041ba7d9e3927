#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Sentence embedding by sentence-transformers and ONNX Runtime.

    sentence.py SIDE MODEL TEXTS FOLDER SLICES [--quick]      SIDE: torch, ort

Opens the model in each way that the side has, finds each one's best batch size, prints one JSON line
about that, then reads lines "WAY SLICE" and answers each with the milliseconds of one part of the
texts: all batches of the texts sorted by length, dealt out in turn, so that a part is padded no more
than the whole is.  Tokenizing, pooling and normalising are timed.

torch: float32, bfloat16, and (not --quick) both compiled.  ort: float32 and int8 (dynamic
quantization), each the fastest of the exported graph, the graph after ONNX Runtime's own optimizer
for BERT, and weights quantized per tensor or per channel.
"""
import argparse
import json
import os
import sys
import time

import numpy as np
import torch

BATCHES, MOST_TOKENS = (16, 32, 64), 256


def read_texts(path):
    with open(path, encoding='utf-8') as f:
        return sorted((json.loads(line)['text'] for line in f), key=len)


def milliseconds(call):
    start = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - start)


class Way:
    """encode(texts of one batch) with the best batch size, over slices of all texts."""

    def __init__(self, encode, texts, n_slices):
        self.encode, self.texts, self.n_slices = encode, texts, n_slices
        sample = texts[::max(1, len(texts) // 96)]
        self.run(sample[:32], BATCHES[0])  # the first call sets up
        self.trials = {b: milliseconds(lambda b=b: self.run(sample, b)) for b in BATCHES}
        self.batch = min(self.trials, key=self.trials.get)

    def run(self, texts, batch):
        for i in range(0, len(texts), batch):
            self.encode(texts[i:i + batch])

    def slice(self, number):
        for i in range(number * self.batch, len(self.texts), self.batch * self.n_slices):
            self.encode(self.texts[i:i + self.batch])


def torch_ways(options, texts):
    import sentence_transformers
    ways, left_out = {}, {}
    for name, dtype in (('f32', torch.float32), ('bf16', torch.bfloat16)):
        for compiled in (False, True)[:1 if options.quick else 2]:
            model = sentence_transformers.SentenceTransformer(
                options.model, device='cpu', model_kwargs={'torch_dtype': dtype})
            if compiled:
                model[0].auto_model = torch.compile(model[0].auto_model, dynamic=True)

            def encode(batch, model=model):
                model.encode(batch, batch_size=len(batch), convert_to_tensor=True,
                             normalize_embeddings=True, show_progress_bar=False)
            label = name + ' compiled' * compiled
            try:
                ways[label] = Way(encode, texts, options.slices)
            except Exception as e:  # what a rival cannot do is said, and the bench goes on
                left_out[label] = str(e).split('\n')[0][:200]
    return ways, left_out, {'sentence-transformers': sentence_transformers.__version__,
                            'torch': torch.__version__}


class Encoder(torch.nn.Module):
    """What is exported: ids, types and mask in, hidden states out."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask, token_type_ids):
        return self.model(input_ids=input_ids, attention_mask=attention_mask,
                          token_type_ids=token_type_ids).last_hidden_state


INPUTS = ('input_ids', 'attention_mask', 'token_type_ids')


def export(options, tokenizer, path):
    from transformers import AutoModel
    model = Encoder(AutoModel.from_pretrained(options.model, attn_implementation='eager')).eval()
    x = tokenizer(['one text', 'another text here'], padding=True, return_tensors='pt')
    axes = {n: {0: 'batch', 1: 'tokens'} for n in INPUTS + ('hidden',)}
    torch.onnx.export(model, tuple(x[n] for n in INPUTS), path, input_names=list(INPUTS),
                      output_names=['hidden'], dynamic_axes=axes, opset_version=17, dynamo=False)


def optimize(path, out, options):
    """ONNX Runtime's graph fusions for BERT: attention, GELU, layer norm with the sum before it."""
    from onnxruntime.transformers import optimizer
    with open(os.path.join(options.model, 'config.json'), encoding='utf-8') as f:
        config = json.load(f)
    made = optimizer.optimize_model(path, model_type='bert',
                                    num_heads=config['num_attention_heads'],
                                    hidden_size=config['hidden_size'])
    made.save_model_to_file(out)


def graphs(options, tokenizer):
    """{way: [paths]}: of which the fastest counts."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic
    os.makedirs(options.folder, exist_ok=True)
    plain, fused = (os.path.join(options.folder, n + '.onnx') for n in ('plain', 'fused'))
    found = {'f32': [plain, fused], 'int8': []}
    if not os.path.exists(plain):
        export(options, tokenizer, plain)
    if not os.path.exists(fused):
        optimize(plain, fused, options)
    for path in (plain, fused):
        for per_channel in (False, True):
            out = path[:-5] + '-int8%s.onnx' % ('-channel' * per_channel)
            if not os.path.exists(out):
                quantize_dynamic(path, out, per_channel=per_channel, weight_type=QuantType.QInt8,
                                 extra_options={'DefaultTensorType': onnx.TensorProto.FLOAT})
            found['int8'].append(out)
    return found


def ort_encoder(path, tokenizer):
    import onnxruntime
    set_up = onnxruntime.SessionOptions()
    set_up.intra_op_num_threads = len(os.sched_getaffinity(0))
    session = onnxruntime.InferenceSession(path, set_up, ['CPUExecutionProvider'])
    names = [i.name for i in session.get_inputs()]

    def encode(batch):
        x = tokenizer(batch, padding=True, truncation=True, max_length=MOST_TOKENS,
                      return_tensors='np')
        hidden = session.run(None, {n: x[n].astype(np.int64) for n in names})[0]
        mask = x['attention_mask'][..., None].astype(np.float32)
        mean = (hidden * mask).sum(1) / mask.sum(1)
        return mean / np.linalg.norm(mean, axis=1, keepdims=True)
    return encode


def ort_ways(options, texts):
    import onnxruntime
    from transformers import AutoTokenizer
    onnxruntime.set_default_logger_severity(3)
    tokenizer, ways, left_out = AutoTokenizer.from_pretrained(options.model), {}, {}
    for name, paths in graphs(options, tokenizer).items():
        tried = {}
        for path in paths:
            try:
                tried[path] = Way(ort_encoder(path, tokenizer), texts, options.slices)
            except Exception as e:  # as above
                left_out[os.path.basename(path)] = str(e).split('\n')[0][:200]
        best = min(tried, key=lambda p, tried=tried: min(tried[p].trials.values()))
        ways[name] = tried[best]
        ways[name].graph = os.path.basename(best)
    return ways, left_out, {'onnxruntime': onnxruntime.__version__}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('side', choices=('torch', 'ort'))
    parser.add_argument('model')
    parser.add_argument('texts')
    parser.add_argument('folder')
    parser.add_argument('slices', type=int)
    parser.add_argument('--quick', action='store_true')
    options = parser.parse_args()
    answers = sys.stdout
    sys.stdout = sys.stderr  # what libraries print is no answer
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    texts = read_texts(options.texts)
    with torch.inference_mode():
        ways, left_out, versions = {'torch': torch_ways, 'ort': ort_ways}[options.side](options,
                                                                                         texts)
    about = {'versions': versions, 'left_out': left_out, 'ways': {
        k: {'batch': w.batch, **({'graph': w.graph} if hasattr(w, 'graph') else {})}
        for k, w in ways.items()}}
    print(json.dumps(about), file=answers, flush=True)
    with torch.inference_mode():
        for line in sys.stdin:
            way, number = line.rsplit(None, 1)
            spent = milliseconds(lambda w=ways[way], n=int(number): w.slice(n))
            print(json.dumps(round(spent, 3)), file=answers, flush=True)


if __name__ == '__main__':
    main()
