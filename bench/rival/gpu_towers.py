# SPDX-License-Identifier: Apache-2.0
"""OpenCLIP's two towers in PyTorch, with the names of its parameters: pre-norm blocks, packed q, k and
v, scaled_dot_product_attention (causal for texts), a class token, the text read at its end token
(the largest id of each row).  Configs are those of bench/models."""
import json

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


class Attention(nn.Module):
    def __init__(self, width, heads, causal):
        super().__init__()
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * width))
        self.out_proj = nn.Linear(width, width)
        self.heads, self.causal = heads, causal

    def forward(self, x):
        b, t, c = x.shape
        qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        q, k, v = qkv.view(b, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.out_proj(y.transpose(1, 2).reshape(b, t, c))


class Block(nn.Module):
    def __init__(self, width, heads, causal):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = Attention(width, heads, causal)
        self.mlp = nn.ModuleDict({'c_fc': nn.Linear(width, 4 * width),
                                  'c_proj': nn.Linear(4 * width, width)})

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp['c_proj'](F.gelu(self.mlp['c_fc'](self.ln_2(x))))


class Transformer(nn.Module):
    def __init__(self, width, heads, layers, causal):
        super().__init__()
        self.resblocks = nn.ModuleList(Block(width, heads, causal) for _ in range(layers))

    def forward(self, x):
        for block in self.resblocks:
            x = block(x)
        return x


class Vision(nn.Module):
    def __init__(self, config, joint, preprocess):
        super().__init__()
        width, patch = config['width'], config['patch_size']
        places = (config['image_size'] // patch) ** 2 + 1
        self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.positional_embedding = nn.Parameter(torch.empty(places, width))
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = Transformer(width, width // config['head_width'], config['layers'], False)
        self.proj = nn.Parameter(torch.empty(width, joint))
        for name in ('mean', 'std'):
            self.register_buffer(name, torch.tensor(preprocess[name]).view(1, 3, 1, 1), False)

    def forward(self, pictures):
        """Pictures (B,S,S,3) u8 -> (B,Z)."""
        x = pictures.permute(0, 3, 1, 2).to(self.mean.dtype) / 255
        x = self.conv1((x - self.mean) / self.std).flatten(2).transpose(1, 2)
        first = self.class_embedding.to(x.dtype).expand(x.shape[0], 1, -1)
        x = torch.cat([first, x], 1) + self.positional_embedding.to(x.dtype)
        x = self.transformer(self.ln_pre(x))
        return self.ln_post(x[:, 0]) @ self.proj


class Towers(nn.Module):
    def __init__(self, config):
        super().__init__()
        model = config['model_cfg']
        text, joint = model['text_cfg'], model['embed_dim']
        self.visual = Vision(model['vision_cfg'], joint, config['preprocess_cfg'])
        self.token_embedding = nn.Embedding(text['vocab_size'], text['width'])
        self.positional_embedding = nn.Parameter(torch.empty(text['context_length'], text['width']))
        self.transformer = Transformer(text['width'], text['heads'], text['layers'], True)
        self.ln_final = nn.LayerNorm(text['width'])
        self.text_projection = nn.Parameter(torch.empty(text['width'], joint))
        self.logit_scale = nn.Parameter(torch.tensor(0.0))

    def encode_text(self, tokens):
        x = self.token_embedding(tokens)
        x = self.transformer(x + self.positional_embedding.to(x.dtype))
        x = x[torch.arange(x.shape[0], device=x.device), tokens.argmax(-1)]
        return self.ln_final(x) @ self.text_projection

    def forward(self, pictures, tokens):
        return contrast(F.normalize(self.visual(pictures), dim=-1),
                        F.normalize(self.encode_text(tokens), dim=-1), self.logit_scale.exp())


def contrast(image, text, scale):
    """CLIP's loss as OpenCLIP computes it: both directions of one matrix of logits."""
    logits = scale * image @ text.T
    labels = torch.arange(image.shape[0], device=image.device)
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


def read_weights(path):
    """A safetensors file of f32 tensors."""
    with open(path, 'rb') as f:
        size = int.from_bytes(f.read(8), 'little')
        header = json.loads(f.read(size))
    header.pop('__metadata__', None)
    data = np.memmap(path, np.uint8, 'r', 8 + size)
    return {name: torch.from_numpy(np.array(data[slice(*of['data_offsets'])]).view(np.float32)
                                   .reshape(of['shape'])) for name, of in header.items()}


def towers(config_path, device):
    """With small random weights, so that it can be compiled before there are others."""
    with open(config_path, encoding='utf-8') as f, torch.device(device):
        model = Towers(json.load(f))
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(0, 0.02)
    return model
