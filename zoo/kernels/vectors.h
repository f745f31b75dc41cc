/* Vectors of float and the activations on them.

   Vectors are GCC's and Clang's own, so that the one source serves every instruction set. */

#pragma once
#include "kernel.h"

#if defined(__AVX512F__)
#define LANES 16
#else
#define LANES 8
#endif
#if defined(__AVX__)
#include <immintrin.h>
#endif

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

/* ---- vectors, whole or the first n lanes ---- */

INLINE vec set(float x) { return x - (vec){}; } /* x + 0 would be an addition, for the sake of -0 */

INLINE vec load(const float *p, int n) {
    if (n == LANES) return *(const vec *)p;
#if defined(__AVX512F__)
    return (vec)_mm512_maskz_loadu_ps((__mmask16)((1 << n) - 1), p);
#endif
    vec v = {};
    memcpy(&v, p, n * sizeof(float));
    return v;
}

INLINE void store(float *p, vec v, int n) {
    if (n == LANES) *(vec *)p = v;
#if defined(__AVX512F__)
    else _mm512_mask_storeu_ps(p, (__mmask16)((1 << n) - 1), (__m512)v);
#else
    else memcpy(p, &v, n * sizeof(float));
#endif
}

INLINE int lanes(int64_t left) { return left < LANES ? (int)left : LANES; }

INLINE vec choose(ivec where, vec yes, vec no) { return (vec)((where & (ivec)yes) | (~where & (ivec)no)); }

INLINE float sum_of(vec x) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps((__m512)x);
#else
    float all = 0.0f;
    for (int lane = 0; lane < LANES; lane++) all += x[lane];
    return all;
#endif
}

/* Whether x > limit in any lane. */
INLINE int any_above(vec x, float limit) {
#if defined(__AVX512F__)
    return _mm512_cmp_ps_mask((__m512)x, (__m512)set(limit), _CMP_GT_OQ) != 0;
#elif defined(__AVX__)
    return _mm256_movemask_ps(_mm256_cmp_ps((__m256)x, (__m256)set(limit), _CMP_GT_OQ)) != 0;
#else
    int found = 0;
    for (int lane = 0; lane < LANES; lane++) found |= x[lane] > limit;
    return found;
#endif
}

/* x from low to high; NaN stays NaN. */
INLINE vec bounded(vec x, float low, float high) {
#if defined(__AVX512F__)
    return (vec)_mm512_min_ps((__m512)set(high), _mm512_max_ps((__m512)set(low), (__m512)x));
#else
    x = choose(x > set(high), set(high), x);
    return choose(x < set(low), set(low), x);
#endif
}

/* exp(r) - 1 for |r| <= ln 2 / 2. */
INLINE vec expm1_small(vec r) {
    vec p = set(1.0f / 5040) * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    return p * (r * r) + r;
}

#define HALF_UP 12582912.0f /* 1.5 * 2^23: the integer next to what is added to it lands in the low bits */

/* 2^n of n that HALF_UP was added to; what stands above the low bits is shifted out. */
INLINE vec power(vec shifted) { return (vec)(((ivec)shifted << 23) + (127 << 23)); }

/* exp(x) = 2^n exp(r) with x = n ln 2 + r, |r| <= ln 2 / 2, for x from -87 to 88; returns exp(r) - 1. */
INLINE vec expm1_parts(vec x, vec *scale) {
    vec shifted = x * 1.44269504f + HALF_UP;
    vec n = shifted - HALF_UP;
    *scale = power(shifted);
    return expm1_small(x - n * 0.693145752f - n * 1.42860677e-6f);
}

/* The greater of two, the second where one is NaN. */
INLINE vec greater(vec x, vec y) {
#if defined(__AVX512F__)
    return (vec)_mm512_max_ps((__m512)x, (__m512)y);
#else
    return choose(x > y, x, y);
#endif
}

/* 2^x for x from -125 to 127: 2^(n + r), |r| <= 1/2, by a polynomial within 2e-7. */
INLINE vec exp2_within(vec x) {
#if defined(__AVX512F__)
    const vec n = (vec)_mm512_roundscale_ps((__m512)x, _MM_FROUND_TO_NEAREST_INT);
#else
    const vec shifted = x + HALF_UP, n = shifted - HALF_UP;
#endif
    const vec r = x - n;
    vec p = set(0.00132647273f) * r + 0.00967151299f;
    p = p * r + 0.0555073358f;
    p = p * r + 0.240222424f;
    p = p * r + 0.693147004f;
    p = p * r + 1.0f;
#if defined(__AVX512F__)
    return (vec)_mm512_scalef_ps((__m512)p, (__m512)n);
#else
    return p * power(shifted);
#endif
}

/* The same, and 0 below -125, where denormal numbers would cost much; NaN stays NaN. */
INLINE vec exp2_(vec x) {
    const vec found = exp2_within(greater(set(-125.0f), x));
#if defined(__AVX512F__)
    const __mmask16 there = _mm512_cmp_ps_mask((__m512)x, (__m512)set(-125.0f), _CMP_NLT_UQ);
    return (vec)_mm512_maskz_mov_ps(there, (__m512)found);
#else
    return choose(x < set(-125.0f), set(0.0f), found);
#endif
}

/* exp(x) - 1, for x from -87 to 88. */
INLINE vec expm1_(vec x) {
    vec scale, p = expm1_parts(x, &scale);
    return p * scale + (scale - 1.0f);
}

/* exp(x), for x from -87 to 88. */
INLINE vec exp_(vec x) {
    vec scale, p = expm1_parts(x, &scale);
    return (1.0f + p) * scale;
}

#define STEEP 60.0f /* up to here products of `below` and `above` are finite */

/* sigmoid(x) = 1 / below(x), for x from -STEEP on. */
INLINE vec below(vec x) { return 2.0f + expm1_(bounded(-x, -STEEP, STEEP)); }

/* tanh(x) = e / (e + 2), which is 1 from 10 on. */
INLINE vec above(vec x) { return expm1_(bounded(x + x, -20.0f, 20.0f)); }

/* For all x, down to 0: what a closed gate multiplies may be as large as floats get. */
INLINE vec sigmoid(vec x) {
    vec s = 1.0f / (2.0f + expm1_(bounded(-x, -STEEP, 88.0f)));
    return choose(x < set(-88.0f), set(0.0f), s);
}

INLINE vec tanh_(vec x) {
    vec e = above(x);
    return e / (e + 2.0f);
}

/* log(x) = e ln 2 + 2 artanh(s) with x = 2^e m, m from 1/sqrt 2 to sqrt 2 and s = (m - 1) / (m + 1), for normal x > 0. */
INLINE vec log_(vec x) {
    const ivec e = ((ivec)x - 0x3f3504f3) >> 23; /* of x / (1 / sqrt 2), rounded down */
    const vec m = (vec)((ivec)x - (e << 23)), s = (m - 1.0f) / (m + 1.0f), z = s * s;
    vec p = set(2.0f / 9) * z + 2.0f / 7;
    p = p * z + 2.0f / 5;
    p = p * z + 2.0f / 3;
    p = p * z * s + 2.0f * s;
    const vec n = __builtin_convertvector(e, vec);
    return n * 0.693145752f + (n * 1.42860677e-6f + p);
}

INLINE vec root(vec x) {
#if defined(__AVX512F__)
    return (vec)_mm512_sqrt_ps((__m512)x);
#elif defined(__AVX__)
    return (vec)_mm256_sqrt_ps((__m256)x);
#else
    for (int lane = 0; lane < LANES; lane++) x[lane] = __builtin_sqrtf(x[lane]);
    return x;
#endif
}
