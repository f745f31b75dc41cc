/* Bins and codes of rows in memory: what zoo/models/trees/bins.py does with sketches and searches, by one sort of each
   feature. `rank_values` finds the bins and the code of each row, `lay_out_codes` gives them their final width. */

#include "kernel.h"
#include <math.h>

#if defined(__clang__)
#pragma clang fp contract(off)
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off") /* ends of bins must have the bits that torch's have */
#endif

typedef struct {
    int64_t num_rows, num_features, num_bins, room, threads; /* num_bins 0 gives each value its own; bins of `room` */
    const double *x;        /* (N, F) */
    const uint8_t *sampled; /* rows that bins of equally many rows are made of, (N), or null for all */
    /* what `rank_values` finds: */
    int64_t *number;      /* bins of each feature, (F) */
    uint8_t *crowded;     /* whether a feature has more values than bins, (F) */
    int32_t *code;        /* (F, N), -1 for NaN */
    double *first, *last; /* ends of the bins, (F, room); the same where each value has its own */
    /* and `lay_out_codes` makes of it: */
    int64_t width;                 /* of bins, that of all features */
    double *lower, *upper;         /* (F, width), NaN behind the last; the same, as above */
    uint8_t *narrow, *narrow_rows; /* (F, N) and (N, F), or null */
    int32_t *wide;                 /* (F, N), or null; the code of NaN is the width */
} Bins;

enum { TOGETHER = 8, FEW = 48 }; /* features that are read at once, a line of the cache; numbers that are sorted one by one */

typedef struct {
    uint64_t key;
    int64_t row;
} Entry;

/* Doubles as integers in the same order, and back. */
INLINE uint64_t key_of(double value) {
    uint64_t bits;
    value += 0.0; /* one kind of zero */
    memcpy(&bits, &value, sizeof bits);
    return bits >> 63 ? ~bits : bits | (uint64_t)1 << 63;
}

INLINE double value_of(uint64_t key) {
    const uint64_t bits = key >> 63 ? key & ~((uint64_t)1 << 63) : ~key;
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* The entries in ascending order, in either array; bytes in which all of them agree are passed over. */
static Entry *sort(Entry *entries, Entry *other, int64_t n) {
    if (n <= FEW) {
        for (int64_t i = 1; i < n; i++) {
            const Entry entry = entries[i];
            int64_t j = i;
            for (; j && entries[j - 1].key > entry.key; j--) entries[j] = entries[j - 1];
            entries[j] = entry;
        }
        return entries;
    }
    uint64_t differ = 0;
    for (int64_t i = 1; i < n; i++) differ |= entries[i].key ^ entries[0].key;
    for (int shift = 0; shift < 64; shift += 8) {
        if (!(differ >> shift & 255)) continue;
        int64_t place[256] = {0}, before = 0;
        for (int64_t i = 0; i < n; i++) place[entries[i].key >> shift & 255]++;
        for (int digit = 0; digit < 256; digit++) {
            const int64_t here = place[digit];
            place[digit] = before, before += here;
        }
        for (int64_t i = 0; i < n; i++) other[place[entries[i].key >> shift & 255]++] = entries[i];
        Entry *swap = entries;
        entries = other, other = swap;
    }
    return entries;
}

static double middle_of(double low, double high) {
    const double middle = low / 2 + high / 2;
    return middle >= low && middle < high ? middle : low;
}

/* Ends of bins of about equally many rows, as `quantile_bins` makes them of values and their counts; returns how many. */
static int64_t find_ends(const double *values, double *counts, int64_t n, int64_t num_bins, double *first, double *last) {
    double total = 0;
    if (!n) return 0;
    for (int turn = 0; turn <= 8; turn++) {
        const double most = total / (double)num_bins;
        total = 0;
        for (int64_t i = 0; i < n; i++) {
            if (turn && counts[i] > most) counts[i] = most;
            total += counts[i];
        }
    }
    const double per_row = 1 / total * (double)num_bins; /* as torch divides a number by a tensor */
    double running = 0;
    int64_t number = 0, bin = 0;
    first[0] = values[0];
    for (int64_t i = 0; i < n; i++) {
        running += counts[i];
        const int64_t here = least((int64_t)((running - counts[i]) * per_row), num_bins - 1);
        if (i && here != bin) {
            const double cut = middle_of(values[i - 1], values[i]);
            last[number++] = cut, first[number] = cut;
        }
        bin = here;
    }
    last[number++] = values[n - 1];
    return number;
}

/* The bins of one feature, and the code of each of its rows. `values` and `counts` have room for a number of each row. */
static void rank_feature(const Bins *b, int64_t feature, const Entry *entries, int64_t n, double *values, double *counts) {
    int32_t *code = b->code + feature * b->num_rows;
    double *first = b->first + feature * b->room, *last = b->last + feature * b->room;
    int64_t number = 0;
    for (int64_t i = 0; i < n; i++) {
        if (!i || entries[i].key != entries[i - 1].key) values[number] = value_of(entries[i].key), counts[number++] = 0;
        counts[number - 1] += !b->sampled || b->sampled[entries[i].row];
        code[entries[i].row] = (int32_t)(number - 1);
    }
    b->crowded[feature] = b->num_bins && number > b->num_bins;
    if (!b->crowded[feature]) {
        memcpy(first, values, number * sizeof *first);
        if (last != first) memcpy(last, values, number * sizeof *last);
        b->number[feature] = number;
        return;
    }
    int64_t seen = 0;
    for (int64_t v = 0; v < number; v++)
        if (counts[v]) values[seen] = values[v], counts[seen++] = counts[v];
    number = b->number[feature] = find_ends(values, counts, seen, b->num_bins, first, last);
    int32_t bin = 0;
    for (int64_t i = 0; i < n; i++) {
        const double value = value_of(entries[i].key);
        while (bin + 1 < number && last[bin] < value) bin++;
        code[entries[i].row] = bin;
    }
}

/* Features [from, to), of which rows hold the numbers side by side. */
static int rank_features(const Bins *b, int64_t from, int64_t to) {
    const int64_t N = b->num_rows, size = N ? N : 1;
    Entry *entries = malloc((to - from + 1) * size * sizeof *entries);
    double *values = malloc(2 * size * sizeof *values);
    int64_t numbers[TOGETHER] = {0};
    if (!entries || !values) {
        free(entries), free(values);
        return 1;
    }
    for (int64_t row = 0; row < N; row++)
        for (int64_t f = from; f < to; f++) {
            const double value = b->x[row * b->num_features + f];
            entries[(f - from) * N + numbers[f - from]] = (Entry){key_of(value), row};
            numbers[f - from] += value == value;
            b->code[f * N + row] = -1;
        }
    Entry *spare = entries + (to - from) * N;
    for (int64_t f = from; f < to; f++) {
        const Entry *sorted = sort(entries + (f - from) * N, spare, numbers[f - from]);
        rank_feature(b, f, sorted, numbers[f - from], values, values + size);
    }
    free(entries), free(values);
    return 0;
}

KERNEL(rank_values, Bins) {
    const Bins *b = task;
    const int64_t F = b->num_features;
    int failed = 0;
#pragma omp parallel for num_threads(b->threads) schedule(dynamic) reduction(|| : failed) if (b->threads > 1)
    for (int64_t from = 0; from < F; from += TOGETHER)
        if (rank_features(b, from, least(F, from + TOGETHER))) failed = 1;
    return failed;
}

KERNEL(lay_out_codes, Bins) {
    enum { ROWS = 512 };
    const Bins *b = task;
    const int64_t N = b->num_rows, F = b->num_features, W = b->width, blocks = (N + ROWS - 1) / ROWS;
    for (int64_t f = 0; f < F; f++)
        for (int64_t bin = 0; bin < W; bin++) {
            const int there = bin < b->number[f];
            b->lower[f * W + bin] = there ? b->first[f * b->room + bin] : NAN;
            b->upper[f * W + bin] = there ? b->last[f * b->room + bin] : NAN;
        }
#pragma omp parallel for num_threads(b->threads) schedule(static) if (b->threads > 1)
    for (int64_t block = 0; block < blocks; block++) {
        const int64_t start = block * ROWS, end = least(N, start + ROWS);
        for (int64_t f = 0; f < F; f++)
            for (int64_t row = start; row < end; row++) {
                const int32_t code = b->code[f * N + row];
                const int64_t final = code < 0 ? W : code;
                if (b->wide)
                    b->wide[f * N + row] = (int32_t)final;
                else
                    b->narrow[f * N + row] = b->narrow_rows[row * F + f] = (uint8_t)final;
            }
    }
    return 0;
}
