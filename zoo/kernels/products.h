/* Products of matrices: a block of rows with a tile of packed weights, the packing, and dT x for gradients of weights. */

#pragma once
#include "vectors.h"

#if defined(__AVX512F__)
#define ROWS 6 /* 6 x 4 sums, 4 weights and a factor fill 29 of 32 registers */
#else
#define ROWS 2 /* 2 x 4 sums, 4 weights and a factor fill 13 of 16 registers */
#endif
#define WIDE 4

/* Vectors in the tile that starts at a column: WIDE, or as many as are left. */
INLINE int width_at(int64_t first, int64_t columns) {
    int64_t left = (columns - first + LANES - 1) / LANES;
    return left < WIDE ? (int)left : WIDE;
}

/* Rows of a block when `rows` are cut into as few and as equal blocks as there can be. */
INLINE int64_t height(int64_t rows) {
    int64_t blocks = (rows + ROWS - 1) / ROWS;
    return blocks ? (rows + blocks - 1) / blocks : 1;
}

/* Memory for `count` floats, on a cache line; to be freed. */
static inline float *floats(int64_t count) {
    return aligned_alloc(64, ((size_t)count * sizeof(float) / 64 + 1) * 64);
}

/* ---- product of a block of rows with a tile of packed weights ---- */

/* sums[r][v] = sum over k of rows[r][k * apart] tile[k * step + v]; `count` and `wide` are constants where this is
   inlined. */
INLINE void block(int count, int wide, int64_t inner, int64_t apart, const float *const *rows, const vec *tile,
                  int64_t step, vec sums[ROWS][WIDE]) {
    vec s[ROWS][WIDE];
#pragma GCC unroll 6
    for (int r = 0; r < count; r++)
#pragma GCC unroll 4
        for (int v = 0; v < wide; v++) s[r][v] = (vec){};
    for (int64_t k = 0; k < inner; k++, tile += step) {
        vec w[WIDE];
#pragma GCC unroll 4
        for (int v = 0; v < wide; v++) w[v] = tile[v];
#pragma GCC unroll 6
        for (int r = 0; r < count; r++) {
            vec x = set(rows[r][k * apart]);
#pragma GCC unroll 4
            for (int v = 0; v < wide; v++) s[r][v] += x * w[v];
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < count; r++)
#pragma GCC unroll 4
        for (int v = 0; v < wide; v++) sums[r][v] = s[r][v];
}

INLINE void blocks(int count, int wide, int64_t inner, int64_t apart, const float *const *rows, const vec *tile,
                   int64_t step, vec sums[ROWS][WIDE]) {
    switch (count) {
    case 1: block(1, wide, inner, apart, rows, tile, step, sums); break;
    case 2: block(2, wide, inner, apart, rows, tile, step, sums); break;
#if ROWS > 2
    case 3: block(3, wide, inner, apart, rows, tile, step, sums); break;
    case 4: block(4, wide, inner, apart, rows, tile, step, sums); break;
    case 5: block(5, wide, inner, apart, rows, tile, step, sums); break;
    case 6: block(6, wide, inner, apart, rows, tile, step, sums); break;
#endif
    }
}

/* The same for a tile whose rows are `step` vectors apart. */
SHARED void product_apart(int count, int wide, int64_t inner, int64_t apart, const float *const *rows, const vec *tile,
                          int64_t step, vec sums[ROWS][WIDE]) {
    switch (wide) {
    case 1: blocks(count, 1, inner, apart, rows, tile, step, sums); break;
    case 2: blocks(count, 2, inner, apart, rows, tile, step, sums); break;
    case 3: blocks(count, 3, inner, apart, rows, tile, step, sums); break;
    case 4: blocks(count, 4, inner, apart, rows, tile, step, sums); break;
    }
}

static void product(int count, int wide, int64_t inner, int64_t apart, const float *const *rows, const vec *tile,
                    vec sums[ROWS][WIDE]) {
    switch (wide) {
    case 1: blocks(count, 1, inner, apart, rows, tile, 1, sums); break;
    case 2: blocks(count, 2, inner, apart, rows, tile, 2, sums); break;
    case 3: blocks(count, 3, inner, apart, rows, tile, 3, sums); break;
    case 4: blocks(count, 4, inner, apart, rows, tile, 4, sums); break;
    }
}

/* ---- packing ---- */

/* W (gates*H, inner) into tiles of LANES units, packed[tile][k][gate][lane], zero beyond H. NULL without memory. */
static inline float *pack_units(const float *weight, int64_t gates, int64_t hidden, int64_t inner, int threads) {
    const int64_t tiles = (hidden + LANES - 1) / LANES;
    float *packed = floats(tiles * LANES * gates * inner);
    if (!packed) return NULL;
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t tile = 0; tile < tiles; tile++) {
        float *to = packed + tile * inner * gates * LANES;
        for (int64_t gate = 0; gate < gates; gate++)
            for (int64_t lane = 0; lane < LANES; lane++) {
                const int64_t unit = tile * LANES + lane;
                const float *from = weight + (gate * hidden + unit) * inner;
                for (int64_t k = 0; k < inner; k++)
                    to[(k * gates + gate) * LANES + lane] = unit < hidden ? from[k] : 0.0f;
            }
    }
    return packed;
}

/* W (depth, columns) with rows `stride` and columns `step` apart into tiles of up to WIDE vectors, packed[tile][k][lane],
   where k = 0 is row `turn` and the rows before it come last. NULL without memory. */
static inline float *pack_columns(const float *weight, int64_t depth, int64_t columns, int64_t stride, int64_t step,
                           int64_t turn, int threads) {
    float *packed = floats((columns + LANES - 1) / LANES * LANES * depth);
    if (!packed) return NULL;
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t first = 0; first < columns; first += WIDE * LANES) {
        const int64_t width = width_at(first, columns) * LANES;
        float *to = packed + first * depth;
        for (int64_t k = 0; k < depth; k++) {
            const float *from = weight + (k + turn) % depth * stride;
            for (int64_t column = first; column < first + width; column++)
                *to++ = column < columns ? from[column * step] : 0.0f;
        }
    }
    return packed;
}

/* ---- dT x ---- */

#define CHUNK 128         /* rows of x and d that are packed at a time */
#define GROUP (8 * ROWS)  /* columns of d that are packed at a time, whole cache lines */

/* One factor x of d, its rows anywhere, and their product out (G, columns) = dT x. */
typedef struct {
    const float *const *rows; /* N */
    int64_t columns;
    float *out;
    float *packed; /* a chunk of rows as packed[tile][row][lane], zero beyond the columns */
} Factor;

static void pack_chunk(const Factor *f, int64_t start, int64_t rows) {
    float *to = f->packed;
    for (int64_t first = 0; first < f->columns; first += WIDE * LANES)
        for (int64_t k = start; k < start + rows; k++)
            for (int v = 0; v < width_at(first, f->columns); v++, to += LANES) {
                const int64_t from = first + v * LANES;
                store(to, load(f->rows[k] + from, lanes(f->columns - from)), LANES);
            }
}

/* to[r][column] += sum over k of d[r][k * GROUP] x[k][column], for `count` rows and all columns. */
static void add_products(int count, int64_t rows, const float *d, const float *packed, float *to, int64_t columns) {
    const float *lines[ROWS] = {0};
    vec sums[ROWS][WIDE];
    for (int r = 0; r < count; r++) lines[r] = d + r;
    for (int64_t first = 0; first < columns; first += WIDE * LANES) {
        const int wide = width_at(first, columns);
        product(count, wide, rows, GROUP, lines, (const vec *)packed, sums);
        packed += rows * wide * LANES;
        for (int r = 0; r < count; r++)
            for (int v = 0; v < wide; v++) {
                const int n = lanes(columns - first - v * LANES);
                float *at = to + r * columns + first + v * LANES;
                store(at, load(at, n) + sums[r][v], n);
            }
    }
}

/* The rows [low, high) of the products, over all N; d is read once for all factors. Not 0 without memory. */
static int outer_share(const float *d, int64_t stride, int64_t low, int64_t high, int64_t N, Factor *factors,
                       int count, float *sums) {
    float part[CHUNK * GROUP];
    int failed = 0;
    for (Factor *f = factors; f < factors + count; f++) {
        f->packed = floats((f->columns + LANES - 1) / LANES * LANES * CHUNK);
        failed |= !f->packed;
        memset(f->out + low * f->columns, 0, (high - low) * f->columns * sizeof(float));
    }
    if (sums) memset(sums + low, 0, (high - low) * sizeof(float));
    for (int64_t start = 0; start < N && !failed; start += CHUNK) {
        const int64_t rows = least(CHUNK, N - start);
        for (Factor *f = factors; f < factors + count; f++) pack_chunk(f, start, rows);
        for (int64_t from = low; from < high; from += GROUP) {
            const int64_t width = least(GROUP, high - from);
            for (int64_t k = 0; k < rows; k++) {
                memcpy(part + k * GROUP, d + (start + k) * stride + from, width * sizeof(float));
                for (int64_t j = 0; sums && j < width; j++) sums[from + j] += part[k * GROUP + j];
            }
            for (Factor *f = factors; f < factors + count; f++)
                for (int64_t j = 0; j < width; j += ROWS)
                    add_products((int)least(ROWS, width - j), rows, part + j, f->packed,
                                 f->out + (from + j) * f->columns, f->columns);
        }
    }
    for (Factor *f = factors; f < factors + count; f++) free(f->packed);
    return failed;
}

/* out (G, columns) = dT x of each of up to two factors, for d (N, G) with rows `stride` apart; sums (G,) of d's columns,
   or NULL. Not 0 without memory. */
static inline int outer(const float *d, int64_t stride, int64_t G, int64_t N, const Factor *factors, int count, float *sums,
                 int threads) {
    const int64_t share = (G + threads * GROUP - 1) / (threads * GROUP) * GROUP;
    int failed = 0;
#pragma omp parallel for num_threads(threads) schedule(static, 1) reduction(| : failed) if (threads > 1)
    for (int64_t low = 0; low < G; low += share) {
        Factor mine[2];
        memcpy(mine, factors, count * sizeof(Factor));
        failed |= outer_share(d, stride, low, least(low + share, G), N, mine, count, sums);
    }
    return failed;
}
