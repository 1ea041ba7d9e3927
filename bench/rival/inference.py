#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""CLIP ViT-B/32's shapes in PyTorch and ONNX Runtime, with seeded random weights.

    inference.py export FOLDER          picture.onnx, text.onnx, and both in 8 bits
    inference.py run FOLDER SIDE        SIDE: torch, compile, ort, ort-int8

`run` reads lines "CASE N" and answers each with the milliseconds of N calls, as a JSON list: the
protocol of bench/inference.c.  Cases: picture1, picture32 (normalised pixels in), text16, and
text77, the same 16 tokens padded to the context as CLIP's own code does.  8 bits are ONNX Runtime's
dynamic quantization: weights in int8, activations measured in each call; both of its ways (per
tensor, per channel) are tried, and the faster one is used for each case.
"""
import json
import os
import sys
import time

import numpy as np
import torch
from transformers import (CLIPTextConfig, CLIPTextModelWithProjection, CLIPVisionConfig,
                          CLIPVisionModelWithProjection)

END, CONTEXT, TOKENS = 49407, 77, 16
INT8 = ('int8', 'int8-channel')


def towers():
    torch.manual_seed(0)
    vision = CLIPVisionModelWithProjection(CLIPVisionConfig(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
        patch_size=32, image_size=224, projection_dim=512))
    text = CLIPTextModelWithProjection(CLIPTextConfig(
        hidden_size=512, intermediate_size=2048, num_hidden_layers=12, num_attention_heads=8,
        projection_dim=512, eos_token_id=END))
    return vision.eval(), text.eval()


def inputs():
    generator = torch.Generator().manual_seed(1)
    pictures = torch.randn(32, 3, 224, 224, generator=generator)
    tokens = torch.randint(1, END - 1, (1, TOKENS), generator=generator)
    tokens[:, -1] = END
    padded = torch.full((1, CONTEXT), END)
    padded[:, :TOKENS] = tokens
    return {'picture1': pictures[:1], 'picture32': pictures, 'text16': tokens, 'text77': padded}


class Output(torch.nn.Module):
    """A tower that gives the projected vector alone."""

    def __init__(self, tower, name, result):
        super().__init__()
        self.tower, self.name, self.result = tower, name, result

    def forward(self, x):
        return getattr(self.tower(**{self.name: x}), self.result)


def modules():
    vision, text = towers()
    return {'picture': Output(vision, 'pixel_values', 'image_embeds'),
            'text': Output(text, 'input_ids', 'text_embeds')}


def export(folder):
    from onnxruntime.quantization import QuantType, quantize_dynamic
    os.makedirs(folder, exist_ok=True)
    os.chdir(folder)  # where a quantizer or a shape inference may leave its own files
    given = inputs()
    for name, module in modules().items():
        x = given['picture32'][:2] if name == 'picture' else given['text77'].repeat(2, 1)
        axes = {0: 'b'} if name == 'picture' else {0: 'b', 1: 's'}
        torch.onnx.export(module, (x,), name + '.onnx', dynamo=False, opset_version=17,
                          input_names=['x'], output_names=['y'],
                          dynamic_axes={'x': axes, 'y': {0: 'b'}})
        for way in INT8:
            quantize_dynamic(name + '.onnx', name + '-' + way + '.onnx', per_channel=way != 'int8',
                             weight_type=QuantType.QInt8, op_types_to_quantize=['MatMul', 'Gemm'])


def sessions(folder, side):
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    ways = [''] if side == 'ort' else ['-' + way for way in INT8]
    return {name: [onnxruntime.InferenceSession('%s/%s%s.onnx' % (folder, name, way), options,
                                                providers=['CPUExecutionProvider'])
                   for way in ways] for name in ('picture', 'text')}


def timed(call):
    start = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - start)


def calls(folder, side):
    """A function for each case; of several ways the faster of three calls."""
    given = inputs()
    if side in ('torch', 'compile'):
        found = modules()
        if side == 'compile':
            found = {k: torch.compile(m, dynamic=False) for k, m in found.items()}
        return {case: lambda x=x, m=found[case.rstrip('0123456789')]: m(x)
                for case, x in given.items()}
    found, out = sessions(folder, side), {}
    for case, x in given.items():
        ways = [lambda s=s, x=x.numpy(): s.run(None, {'x': x})
                for s in found[case.rstrip('0123456789')]]
        if len(ways) > 1:
            best = [min(timed(way) for _ in range(4)) for way in ways]
            out[case] = ways[int(np.argmin(best))]
        else:
            out[case] = ways[0]
    return out


def run(folder, side):
    import onnxruntime
    import transformers
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    found = calls(folder, side)
    print(json.dumps({'torch': torch.__version__, 'transformers': transformers.__version__,
                      'onnxruntime': onnxruntime.__version__}), flush=True)
    with torch.inference_mode():
        for line in sys.stdin:
            case, n = line.split()
            print(json.dumps([round(timed(found[case]), 4) for _ in range(int(n))]), flush=True)


if __name__ == '__main__':
    if sys.argv[1] == 'export':
        export(sys.argv[2])
    else:
        run(sys.argv[2], sys.argv[3])
