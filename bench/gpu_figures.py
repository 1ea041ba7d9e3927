# SPDX-License-Identifier: Apache-2.0
"""What the GPU benches make of the answers: pictures a second, ratios, arithmetic rates, curves."""
import common
from train_rate import tower_flops

# Dense bf16 TFLOP/s by NVIDIA's data sheets, by what a card's name holds.
NOMINAL = {'H200': 989.4, 'H100 80GB HBM3': 989.4, 'A100': 312.0}
# The curves agree where no loss is further than this from the other side's, of itself: both round
# every operator's result to bf16, 2^-9 of it, and the loss is a mean over the batch.
CURVE = 0.01


def step_flops(model, lengths):
    """What a step needs: a forward pass, and twice that backward but for patches, whose pixels need
    no gradient; the loss's product of (B,Z) with (Z,B).  Nothing that is computed again counts."""
    vision, text, joint = model['vision_cfg'], model['text_cfg'], model['embed_dim']
    batch, patch, width = len(lengths), vision['patch_size'], vision['width']
    patches = (vision['image_size'] // patch) ** 2
    places = patches + 1
    picture = 3 * tower_flops(width, vision['layers'], 4 * width, places, places ** 2, joint)
    picture += 2 * 2 * patches * 3 * patch * patch * width
    caption = 3 * tower_flops(text['width'], text['layers'], 4 * text['width'],
                              float(lengths.mean()),
                              float((lengths.astype(float) ** 2).mean()), joint)
    return batch * (picture + caption) + 3 * 2 * batch * batch * joint


def nominal_tflops(card):
    return next((v for k, v in NOMINAL.items() if k in (card or '')), None)


def part_of_peak(gflop, ms, peak):
    """Of a step of so many GFLOP: TFLOP/s, and their part of the card's peak."""
    rates = [gflop / t for t in ms]
    return {'tflops': common.sample(rates),
            'part': common.sample([r / peak for r in rates], 3) if peak else None}


def faster(ours, theirs):
    """How many times as fast, of milliseconds that were measured in turn."""
    return common.ratio(theirs, ours)


def best(found, names):
    """The name with the least median; names that were not measured do not count."""
    there = [n for n in names if found.get(n)]
    return min(there, key=lambda n: common.sample(found[n], 4)['median']) if there else None


def compare_curves(ours, theirs):
    far = [abs(a - b) / abs(b) for a, b in zip(ours, theirs)]
    return {'tessera': ours, 'pytorch': theirs, 'furthest': round(max(far), 6),
            'allowed': CURVE, 'agree': max(far) <= CURVE}


def training(found, model, lengths, card):
    """The result of one model: found has ms by side, gflop by our sides, curves, precision."""
    peak, ms = nominal_tflops(card), found['ms']
    batch = len(lengths['full'])
    out = {'batch': batch, 'nominal_tflops': peak, 'sides': {}, 'curves': found['curves'],
           'versions': found['versions'],
           'tokens_mean': {k: round(float(v.mean()), 2) for k, v in lengths.items()},
           'left_out': found['left_out'], 'times_as_fast': {}}
    for name, times in ms.items():
        needs = step_flops(model, lengths['short' if 'without padding' in name else 'full'])
        side = {'ms': common.sample(times, 3),
                'pictures_per_s': common.sample([1e3 * batch / t for t in times]),
                'mfu': part_of_peak(needs / 1e9, times, peak), 'memory_mb': found['memory'].get(name)}
        if name in found['gflop']:
            side['hfu'] = part_of_peak(found['gflop'][name], times, peak)
        out['sides'][name] = side
    for name in (n for n in ms if n.startswith('tessera')):
        out['times_as_fast'][name] = {rival: faster(ms[name], ms[rival]) for rival in ms
                                      if rival.startswith('pytorch')}
    if found['fp8']:
        wide, narrow = found['fp8']['tessera bf16'], found['fp8']['tessera fp8']
        out['fp8'] = {'ms': {k: common.sample(v, 3) for k, v in found['fp8'].items()},
                      'times_bf16': faster(narrow, wide)}
    return out


def contrast(found, memory):
    """ms and workspace by side."""
    ours = found['tessera']
    rivals = [n for n in found if n != 'tessera']
    return {'ms': {k: common.sample(v, 3) for k, v in found.items()}, 'workspace_mb': memory,
            'times_as_fast': {n: faster(ours, found[n]) for n in rivals},
            'times_the_memory': {n: round(memory[n] / memory['tessera'], 1) for n in rivals
                                 if memory.get(n) and memory.get('tessera')}}


def embedding(found, counts):
    """ms by (case, side); counts: pictures of a call by case."""
    out = {}
    for case, sides in found.items():
        rates = {k: [1e3 * counts[case] / t for t in v] for k, v in sides.items()}
        out[case] = {'pictures_a_call': counts[case],
                     'pictures_per_s': {k: common.sample(v) for k, v in rates.items()},
                     'times_as_fast': {k: faster(sides['tessera'], v) for k, v in sides.items()
                                       if k != 'tessera'}}
    return out


def search(found):
    """ms by number of queries and side."""
    return {'%d' % n: {'ms': {k: common.sample(v, 3) for k, v in sides.items()},
                       'times_as_fast': {k: faster(sides['tessera'], v) for k, v in sides.items()
                                         if k != 'tessera'}} for n, sides in found.items()}


def agreement(ours, theirs):
    """The part of the hits that both found."""
    same = sum(len(set(a) & set(b)) for a, b in zip(ours, theirs))
    return round(same / sum(len(b) for b in theirs), 5)
