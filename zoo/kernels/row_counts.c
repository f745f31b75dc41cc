/* How often each feature is in each row, the features of a row in ascending order.

   Letters: N rows, M tokens of all, V tokens that there are, F features. */

#include "kernel.h"

typedef struct {
    int64_t num_rows, num_features;
    const int32_t *tokens;   /* (M) */
    const int64_t *ends;     /* where each row ends, (N) */
    const int32_t *features; /* of each token, negative where it has none, (V) */
    int64_t *crow;           /* where each row begins in what follows, (N + 1); out */
    int64_t *columns;        /* (M); out */
    float *counts;           /* (M); out */
} RowCounts;

/* Which features are in a row: a bit for each, and a bit for each 64 of these that are not all 0. */
KERNEL(row_counts, RowCounts) {
    const int64_t words = task->num_features / 64 + 1, blocks = words / 64 + 1;
    uint64_t *there = calloc((size_t)(words + blocks), sizeof *there), *block = there + words;
    int32_t *times = calloc((size_t)task->num_features + 1, sizeof *times);
    const int full = there && times;
    int64_t found = 0, at = 0;
    if (full) task->crow[0] = 0;
    for (int64_t row = 0; row < task->num_rows && full; row++) {
        for (; at < task->ends[row]; at++) {
            const int32_t feature = task->features[task->tokens[at]];
            if (feature < 0) continue;
            if (!times[feature]++) {
                there[feature / 64] |= (uint64_t)1 << feature % 64;
                block[feature / 4096] |= (uint64_t)1 << feature / 64 % 64;
            }
        }
        for (int64_t b = 0; b < blocks; b++)
            for (; block[b]; block[b] &= block[b] - 1) {
                const int64_t word = 64 * b + __builtin_ctzll(block[b]);
                for (; there[word]; there[word] &= there[word] - 1, found++) {
                    const int64_t feature = 64 * word + __builtin_ctzll(there[word]);
                    task->columns[found] = feature;
                    task->counts[found] = (float)times[feature];
                    times[feature] = 0;
                }
            }
        task->crow[row + 1] = found;
    }
    free(there);
    free(times);
    return !full;
}
