/* Gradients of the weights, dT x, and the packing of weights for the passes. */

#pragma once
#include "recurrent_vectors.h"

/* ---- gradients of the weights ---- */

#define CHUNK 128         /* rows of x and d that are packed at a time */
#define GROUP (8 * ROWS)  /* columns of d that are packed at a time, whole cache lines */

/* `rows` rows of x (., columns) as packed[tile][row][lane], zero beyond the columns. */
static void pack_chunk(const float *x, int64_t rows, int64_t columns, float *packed) {
    for (int64_t first = 0; first < columns; first += WIDE * LANES)
        for (int64_t k = 0; k < rows; k++)
            for (int v = 0; v < width_at(first, columns); v++, packed += LANES) {
                const int64_t from = first + v * LANES;
                store(packed, load(x + k * columns + from, lanes(columns - from)), LANES);
            }
}

/* to[r][column] += sum over k of d[r][k * GROUP] x[k][column], for `count` rows and all columns. */
static void add_products(int count, int64_t rows, const float *d, const float *packed, float *to, int64_t columns) {
    const float *lines[ROWS];
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

/* One factor of d, x (N, columns), and their product out (G, columns) = dT x. */
typedef struct {
    const float *x;
    int64_t columns;
    float *out, *packed;
} Factor;

/* The rows [low, high) of both products, over all N; d is read once for the two. */
static void outer_share(const float *d, int64_t stride, int64_t low, int64_t high, int64_t N, Factor *factors,
                        int count, float *sums) {
    float part[CHUNK * GROUP];
    for (Factor *f = factors; f < factors + count; f++) {
        f->packed = aligned_alloc(64, ((f->columns + LANES - 1) / LANES * LANES) * CHUNK * sizeof(float));
        memset(f->out + low * f->columns, 0, (high - low) * f->columns * sizeof(float));
    }
    if (sums) memset(sums + low, 0, (high - low) * sizeof(float));
    for (int64_t start = 0; start < N; start += CHUNK) {
        const int64_t rows = least(CHUNK, N - start);
        for (Factor *f = factors; f < factors + count; f++)
            pack_chunk(f->x + start * f->columns, rows, f->columns, f->packed);
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
}

/* out (G, columns) = dT x, and the same of y unless that is NULL, for d (N, G) with rows `stride` apart;
   sums (G,): of d's columns, or NULL. */
void outer(const float *d, int64_t stride, int64_t G, int64_t N, const float *x, int64_t columns, float *out,
           const float *y, int64_t y_columns, float *y_out, float *sums, int threads) {
    const int64_t share = (G + threads * GROUP - 1) / (threads * GROUP) * GROUP;
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int64_t low = 0; low < G; low += share) {
        Factor factors[2] = {{x, columns, out, NULL}, {y, y_columns, y_out, NULL}};
        outer_share(d, stride, low, least(low + share, G), N, factors, y ? 2 : 1, sums);
    }
}

/* ---- packing ---- */

int lane_count(void) { return LANES; }

/* W (gates*H, inner) into tiles of LANES units, packed[tile][k][gate][lane], zero beyond H. */
void pack_units(const float *weight, float *packed, int64_t gates, int64_t hidden, int64_t inner, int threads) {
    const int64_t tiles = (hidden + LANES - 1) / LANES;
#pragma omp parallel for num_threads(threads)
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
}

/* W (depth, columns) with rows `stride` and columns `step` apart into tiles of up to WIDE vectors, packed[tile][k][lane]. */
void pack_columns(const float *weight, float *packed, int64_t depth, int64_t columns, int64_t stride, int64_t step,
                  int threads) {
#pragma omp parallel for num_threads(threads)
    for (int64_t first = 0; first < columns; first += WIDE * LANES) {
        const int64_t width = width_at(first, columns) * LANES;
        float *to = packed + first * depth;
        for (int64_t k = 0; k < depth; k++)
            for (int64_t column = first; column < first + width; column++)
                *to++ = column < columns ? weight[k * stride + column * step] : 0.0f;
    }
}
