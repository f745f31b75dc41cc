/* Vectors, activations, and the product of a block of rows with a tile of packed weights.

   Vectors are GCC's and Clang's own, so that the one source serves every instruction set. */

#pragma once
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__AVX512F__)
#include <immintrin.h>
#define LANES 16
#define ROWS 6 /* 6 x 4 sums, 4 weights and a factor fill 29 of 32 registers */
#else
#define LANES 8
#define ROWS 2 /* 2 x 4 sums, 4 weights and a factor fill 13 of 16 registers */
#endif
#define WIDE 4
#define INLINE static inline __attribute__((always_inline))

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

/* ---- vectors, whole or the first n lanes ---- */

INLINE vec set(float x) { return (vec){} + x; }

INLINE vec load(const float *p, int n) {
    if (n == LANES) return *(const vec *)p;
    vec v = {};
    memcpy(&v, p, n * sizeof(float));
    return v;
}

INLINE void store(float *p, vec v, int n) {
    if (n == LANES) *(vec *)p = v;
    else memcpy(p, &v, n * sizeof(float));
}

INLINE int lanes(int64_t left) { return left < LANES ? (int)left : LANES; }

INLINE vec choose(ivec where, vec yes, vec no) { return (vec)((where & (ivec)yes) | (~where & (ivec)no)); }

/* x within +-limit; NaN stays NaN. */
INLINE vec bounded(vec x, float limit) {
#if defined(__AVX512F__)
    return (vec)_mm512_min_ps((__m512)set(limit), _mm512_max_ps((__m512)set(-limit), (__m512)x));
#else
    x = choose(x > set(limit), set(limit), x);
    return choose(x < set(-limit), set(-limit), x);
#endif
}

/* exp(x) - 1 = 2^n (exp(r) - 1) + 2^n - 1 with x = n ln 2 + r, |r| <= ln 2 / 2. */
INLINE vec expm1_(vec x) {
    vec shifted = x * 1.44269504f + 12582912.0f; /* 1.5 * 2^23: the integer lands in the low bits */
    vec n = shifted - 12582912.0f;
    vec r = x - n * 0.693145752f - n * 1.42860677e-6f;
    vec p = set(1.0f / 5040) * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * (r * r) + r;
    vec scale = (vec)(((ivec)shifted << 23) + (127 << 23)); /* what stands above the low bits is shifted out */
    return p * scale + (scale - 1.0f);
}

/* sigmoid(x) = 1 / below(x); beyond 60 float has nothing to add, and no product of two of these overflows. */
INLINE vec below(vec x) { return 2.0f + expm1_(bounded(-x, 60.0f)); }

/* tanh(x) = e / (e + 2), which is 1 from 10 on. */
INLINE vec above(vec x) { return expm1_(bounded(x + x, 20.0f)); }

INLINE vec sigmoid(vec x) { return 1.0f / below(x); }

INLINE vec tanh_(vec x) {
    vec e = above(x);
    return e / (e + 2.0f);
}

/* ---- product of a block of rows with a tile of packed weights ---- */

/* sums[r][v] = sum over k of rows[r][k * apart] tile[k][v]; `count` and `wide` are constants where this is inlined. */
INLINE void block(int count, int wide, int64_t inner, int64_t apart, const float *const *rows, const vec *tile,
                  vec sums[ROWS][WIDE]) {
    vec s[ROWS][WIDE];
#pragma GCC unroll 6
    for (int r = 0; r < count; r++)
#pragma GCC unroll 4
        for (int v = 0; v < wide; v++) s[r][v] = (vec){};
    for (int64_t k = 0; k < inner; k++, tile += wide) {
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
                   vec sums[ROWS][WIDE]) {
    switch (count) {
    case 1: block(1, wide, inner, apart, rows, tile, sums); break;
    case 2: block(2, wide, inner, apart, rows, tile, sums); break;
#if ROWS > 2
    case 3: block(3, wide, inner, apart, rows, tile, sums); break;
    case 4: block(4, wide, inner, apart, rows, tile, sums); break;
    case 5: block(5, wide, inner, apart, rows, tile, sums); break;
    case 6: block(6, wide, inner, apart, rows, tile, sums); break;
#endif
    }
}

static void product(int count, int wide, int64_t inner, int64_t apart, const float *const *rows, const vec *tile,
                    vec sums[ROWS][WIDE]) {
    switch (wide) {
    case 1: blocks(count, 1, inner, apart, rows, tile, sums); break;
    case 2: blocks(count, 2, inner, apart, rows, tile, sums); break;
    case 3: blocks(count, 3, inner, apart, rows, tile, sums); break;
    case 4: blocks(count, 4, inner, apart, rows, tile, sums); break;
    }
}

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

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
