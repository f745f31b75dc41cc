/* Codes of values: how many edges are below each. */

#include "kernel.h"

typedef struct {
    int64_t num_rows, num_features, num_edges, missing, threads;
    const double *x;      /* (N, F) */
    const double *edges;  /* (F, E), ascending */
    const int64_t *count; /* edges of each feature, (F) */
    uint8_t *narrow, *narrow_rows; /* (F, N) and (N, F), or null */
    int32_t *wide;                 /* (F, N), or null */
} Encode;

/* The number of edges below a value, without a branch; that of missing values for NaN. */
INLINE int64_t code_of(double value, const double *edges, int64_t count, int64_t missing) {
    int64_t low = 0;
    for (int64_t rest = count; rest > 0;) {
        const int64_t half = (rest + 1) / 2;
        low += edges[low + half - 1] < value ? half : 0;
        rest -= half;
    }
    return value != value ? missing : low;
}

KERNEL(encode_rows, Encode) {
    enum { ROWS = 512 };
    const Encode *e = task;
    const int64_t N = e->num_rows, F = e->num_features, blocks = (N + ROWS - 1) / ROWS;
#pragma omp parallel for num_threads(e->threads) schedule(static) if (e->threads > 1)
    for (int64_t block = 0; block < blocks; block++) {
        const int64_t start = block * ROWS, end = least(N, start + ROWS);
        for (int64_t f = 0; f < F; f++) {
            const double *edges = e->edges + f * e->num_edges;
            for (int64_t row = start; row < end; row++) {
                const int64_t code = code_of(e->x[row * F + f], edges, e->count[f], e->missing);
                if (e->wide) {
                    e->wide[f * N + row] = (int32_t)code;
                    continue;
                }
                e->narrow[f * N + row] = (uint8_t)code;
                e->narrow_rows[row * F + f] = (uint8_t)code;
            }
        }
    }
    return 0;
}
