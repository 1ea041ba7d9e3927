/* SPDX-License-Identifier: Apache-2.0 */
/* Working memory of one thread, a part for each kind of tokenizer. */
#ifndef TESS_TEXT_SCRATCH_H
#define TESS_TEXT_SCRATCH_H

#include "text/pipe.h"
#include "text/spm.h"

struct tess_tokenizer_scratch {
    tess__spm_scratch spm;
    tess__pipe_scratch pipe;
};

#endif
