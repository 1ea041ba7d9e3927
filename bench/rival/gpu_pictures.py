# SPDX-License-Identifier: Apache-2.0
"""A folder of JPEGs through torch's DataLoader and Pillow: read, decode, shorter side to the size
(bicubic), centre crop; a process for each processor.  Normalising is left to the card."""
import os

import numpy as np
import torch
from PIL import Image


class Folder(torch.utils.data.Dataset):
    def __init__(self, folder, side):
        self.paths = sorted(entry.path for entry in os.scandir(folder))
        self.side = side

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, i):
        with Image.open(self.paths[i]) as picture:
            picture = picture.convert('RGB')
        w, h = picture.size
        shorter = min(w, h)
        picture = picture.resize((w * self.side // shorter, h * self.side // shorter),
                                 Image.Resampling.BICUBIC)
        left, top = (round((n - self.side) / 2) for n in picture.size)
        picture = picture.crop((left, top, left + self.side, top + self.side))
        return torch.from_numpy(np.array(picture))


def loader(folder, side, batch, pin):
    return torch.utils.data.DataLoader(
        Folder(folder, side), batch_size=batch, num_workers=len(os.sched_getaffinity(0)),
        pin_memory=pin, persistent_workers=True, prefetch_factor=4)
