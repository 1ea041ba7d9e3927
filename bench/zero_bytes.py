# SPDX-License-Identifier: Apache-2.0
"""ZeRO on 1, 2 and 4 ranks: bytes of states by the store's allocations, and bytes sent in a step,
beside the formulas (bench/zero.c)."""
import json
import os

import common

MPI = dict(OMPI_MCA_plm='isolated', OMPI_ALLOW_RUN_AS_ROOT='1', OMPI_ALLOW_RUN_AS_ROOT_CONFIRM='1',
           OMPI_MCA_mpi_yield_when_idle='1', OMP_NUM_THREADS='1')


def states(p, r, stage):
    """Bytes of a rank: weights and gradients in bf16, masters and moments in f32."""
    return (16 * p, 4 * p + 12 * p / r, 2 * p + 14 * p / r, 16 * p / r)[stage]


def wire(p, r, stage):
    return (6 if stage == 3 else 4) * p * (r - 1) / r


def measure(context, config, ranks, steps, overlap):
    """A row for each stage, beside the formulas."""
    run = common.Run(['mpirun', '--oversubscribe', '--bind-to', 'none', '-n', str(ranks),
                      context.program('zero'), config, context.tokenizer, '8', '20', str(steps),
                      str(overlap)], MPI)
    for line in run.out.splitlines():
        row = {**json.loads(line), 'overlap_mb': overlap, 'load': common.median_load()}
        p, r, stage = row['parameters'], row['ranks'], row['stage']
        row['states_of_formula'] = round(row['states']['mean'] / states(p, r, stage), 4)
        row['most_states_of_formula'] = round(row['states']['most'] / states(p, r, stage), 4)
        if r > 1:
            row['wire_of_formula'] = round(row['wire']['mean'] / wire(p, r, stage), 4)
        row['step_s'] = common.sample(row['step_s'][1:] or row['step_s'], 3)
        common.say('%d ranks, stage %d, overlap %d MB: %.1f MB of states (%.4f of the formula), '
                   '%.1f MB sent (%s), %.2f s a step' % (
                       r, stage, overlap, 1e-6 * row['states']['mean'], row['states_of_formula'],
                       1e-6 * row['wire']['mean'], row.get('wire_of_formula', '-'),
                       row['step_s']['median']))
        yield row


def bench(context):
    config = 'bench/models/gpu_tiny.json' if common.QUICK else 'bench/models/clip_b32.json'
    steps = 1 if common.QUICK else 4
    rows = []
    for ranks, overlap in ((1, 0), (2, 0), (2, 32), (4, 32)):
        rows += measure(context, config, ranks, steps, overlap)
    common.write(context, 'zero', {
        'what': 'states of a rank by the store, and bytes that it sends in a step, mean of ranks',
        'model': os.path.basename(config), 'weights': 'bf16, masters f32, gradients bf16',
        'formulas': {'states': ['16P', '4P+12P/R', '2P+14P/R', '16P/R'],
                     'wire': ['4P(R-1)/R', '4P(R-1)/R', '4P(R-1)/R', '6P(R-1)/R']},
        'note': "stage 3 sends less than the formula: the backward pass does not read the words' "
                'table, so it is gathered once',
        'rows': rows})
