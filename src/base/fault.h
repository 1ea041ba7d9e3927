/* SPDX-License-Identifier: Apache-2.0 */
/* Counting of the calls that tests can make fail. */
#ifndef BASE_FAULT_H
#define BASE_FAULT_H

#include "tessera/base.h"

/* Counts one call of this kind; true when it is to fail. */
bool tess__fault_hit(tess_fault kind);

#endif
