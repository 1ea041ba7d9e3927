/* SPDX-License-Identifier: Apache-2.0 */
/* A binary heap in a caller's array, typed: TESS__HEAP(T, before) defines heap_push and heap_pop
 * for items of T, of which the one that is before all others comes first.  The array has room for
 * one more item at each push. */
#ifndef TESS_TEXT_HEAP_H
#define TESS_TEXT_HEAP_H

#include <stddef.h>

#define TESS__HEAP(T, before)                                                                      \
    static void heap_push(T *heap, size_t *n, T item)                                              \
    {                                                                                              \
        size_t i = (*n)++;                                                                         \
        for (size_t up; i > 0 && before(&item, &heap[up = (i - 1) / 2]); i = up) {                 \
            heap[i] = heap[up];                                                                    \
        }                                                                                          \
        heap[i] = item;                                                                            \
    }                                                                                              \
                                                                                                   \
    static T heap_pop(T *heap, size_t *n)                                                          \
    {                                                                                              \
        T top = heap[0], last = heap[--*n];                                                        \
        size_t i = 0;                                                                              \
        for (size_t down; (down = 2 * i + 1) < *n; i = down) {                                     \
            if (down + 1 < *n && before(&heap[down + 1], &heap[down])) {                           \
                down++;                                                                            \
            }                                                                                      \
            if (!before(&heap[down], &last)) {                                                     \
                break;                                                                             \
            }                                                                                      \
            heap[i] = heap[down];                                                                  \
        }                                                                                          \
        heap[i] = last;                                                                            \
        return top;                                                                                \
    }

#endif
