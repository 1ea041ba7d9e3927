/* SPDX-License-Identifier: Apache-2.0 */
/* The factory string behind "auto".
 *
 * AutoFaiss leaves exact search at 1,000 rows.  Here it stays until a scan stops being cheap beside
 * embedding the query (4M floats: 2 ms with Debian's SSE2 build): exact results, no build time,
 * and the same file every time.  Beyond that the rule is AutoFaiss': HNSW while it fits, with the
 * numbers of clusters that its authors give.
 */
#include "tessera/index.h"

#define EXACT_ROWS   1000
#define EXACT_FLOATS (1 << 22)

/* Clusters for so many rows, where not computed. */
static const struct {
    int64_t max_rows;
    int n_lists;
} cluster_rules[] = {{10000000, 16384}, {300000000, 65536}, {INT64_MAX, 131072}};

/* 4 sqrt(n) to the nearest power of two. */
static int small_clusters(int64_t n)
{
    int lists = 1;
    while ((int64_t)lists * lists * 2 < 16 * n) {
        lists *= 2;
    }
    return lists;
}

static int large_clusters(int64_t n)
{
    int i = 0;
    while (n > cluster_rules[i].max_rows) {
        i++;
    }
    return cluster_rules[i].n_lists;
}

/* The widest product quantizer of at most 64 bytes that divides the dimension. */
static int quantizer_bytes(int64_t dim)
{
    int m = 64;
    while (dim % m != 0) {
        m /= 2;
    }
    return m;
}

/* Vectors plus 2M links on the ground floor and M on each above, 4 bytes each; M of 0: none fits.
 */
static int links_that_fit(int64_t n, int64_t dim, int64_t memory_bytes)
{
    static const int links[] = {32, 24, 16, 12, 8};
    for (int64_t i = 0; i < TESS_COUNT(links); i++) {
        double row_bytes = 4.0 * (double)dim + 4.0 * links[i] * 2.2;
        if ((double)n * row_bytes <= (double)memory_bytes / 2) {
            return links[i];
        }
    }
    return 0;
}

void tess_index_auto(int64_t n, int64_t dim, int64_t memory_bytes, char out[64])
{
    int links = links_that_fit(n, dim, memory_bytes);
    if (n < EXACT_ROWS || n <= EXACT_FLOATS / dim) {
        snprintf(out, 64, "Flat");
    } else if (links > 0) {
        snprintf(out, 64, "HNSW%d,Flat", n < 10000 ? 15 : links);
    } else if (n < 1000000) {
        snprintf(out, 64, "IVF%d,Flat", small_clusters(n));
    } else {
        int m = quantizer_bytes(dim);
        snprintf(out, 64, "OPQ%d,IVF%d_HNSW32,PQ%dx8", m, large_clusters(n), m);
    }
}
