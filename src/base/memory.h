/* SPDX-License-Identifier: Apache-2.0 */
/* Allocation for the libraries behind base's doors. */
#ifndef BASE_MEMORY_H
#define BASE_MEMORY_H

#include <stddef.h>

/* As malloc (16-byte aligned, not zeroed), but counted and able to fail; released by tess_free. */
void *tess__alloc_small(size_t bytes);

#endif
