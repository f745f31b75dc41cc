/* Itemsets: in how many baskets all items of a set are, from a string of bits for each item, and which sets of one item
   more have no subset that is not among them.

   Letters: M items, W words of 64 baskets, C sets, k items of a set. */

#include "kernel.h"

enum { BLOCK = 512, PARTS = 64 }; /* words that are looked at at a time; parts of the sets, for threads */

typedef struct {
    int64_t num_sets, size, words, threads;
    const int64_t *bits; /* (M, W) */
    const int64_t *sets; /* rows of `bits`, (C, k), k at least 1; best with those side by side that differ in the last */
    int64_t *counts;     /* (C); out */
} Itemsets;

/* Whether a set has the items of the one before it, but for the last. */
INLINE int goes_on(const int64_t *set, int64_t size) {
    for (int64_t i = 0; i < size - 1; i++)
        if (set[i] != set[i - size]) return 0;
    return 1;
}

static void count_part(const Itemsets *task, int64_t first, int64_t end) {
    const int64_t k = task->size, W = task->words;
    uint64_t shared[BLOCK]; /* the baskets that have all items but the last */
    memset(task->counts + first, 0, (size_t)(end - first) * sizeof *task->counts);
    for (int64_t from = 0; from < W; from += BLOCK) {
        const int64_t n = least(BLOCK, W - from);
        const uint64_t *bits = (const uint64_t *)task->bits + from;
        for (int64_t c = first; c < end; c++) {
            const int64_t *set = task->sets + c * k;
            if (c == first || !goes_on(set, k)) {
                memset(shared, 255, sizeof shared);
                for (int64_t i = 0; i < k - 1; i++)
                    for (int64_t w = 0; w < n; w++) shared[w] &= bits[set[i] * W + w];
            }
            const uint64_t *last = bits + set[k - 1] * W;
            int64_t count = 0;
            for (int64_t w = 0; w < n; w++) count += __builtin_popcountll(shared[w] & last[w]);
            task->counts[c] += count;
        }
    }
}

KERNEL(count_sets, Itemsets) {
    const int64_t C = task->num_sets;
#pragma omp parallel for num_threads((int)task->threads) schedule(dynamic) if (task->threads > 1)
    for (int64_t part = 0; part < PARTS; part++) count_part(task, C * part / PARTS, C * (part + 1) / PARTS);
    return 0;
}

typedef struct {
    int64_t num_sets, size;
    const int64_t *sets; /* in lexicographic order, (C, k), k at least 2 */
    int64_t *joined;     /* those of k + 1 items, in that order, with room for all pairs; NULL counts these; out */
    int64_t *found;      /* their number; out */
} Join;

/* Below 0, 0 or above, as one set comes before another, is it, or comes after it. */
INLINE int compared(const int64_t *a, const int64_t *b, int64_t size) {
    for (int64_t i = 0; i < size; i++)
        if (a[i] != b[i]) return a[i] < b[i] ? -1 : 1;
    return 0;
}

/* Whether a set is among those. */
static int is_there(const Join *task, const int64_t *set) {
    int64_t low = 0, high = task->num_sets;
    while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        const int order = compared(task->sets + middle * task->size, set, task->size);
        if (!order) return 1;
        if (order < 0) low = middle + 1;
        else high = middle;
    }
    return 0;
}

/* Whether all subsets of a set of k + 1 items are there; without one of its last two items it is one of its parents. */
static int whole(const Join *task, const int64_t *set, int64_t *part) {
    const int64_t k = task->size;
    memcpy(part, set + 1, (size_t)k * sizeof *part);
    for (int64_t left_out = 0; left_out < k - 1; left_out++) {
        if (!is_there(task, part)) return 0;
        part[left_out] = set[left_out];
    }
    return 1;
}

KERNEL(join_sets, Join) {
    const int64_t k = task->size, C = task->num_sets;
    int64_t *part = malloc((size_t)k * sizeof *part), found = 0;
    if (!part) return 1;
    for (int64_t a = 0; a < C; a++) {
        const int64_t *set = task->sets + a * k;
        for (int64_t b = a + 1; b < C && goes_on(task->sets + b * k, k); b++) {
            if (!task->joined) {
                found++;
                continue;
            }
            int64_t *joined = task->joined + found * (k + 1);
            memcpy(joined, set, (size_t)k * sizeof *set);
            joined[k] = task->sets[b * k + k - 1];
            found += whole(task, joined, part);
        }
    }
    *task->found = found;
    free(part);
    return 0;
}
