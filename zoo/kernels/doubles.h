/* Vectors of double, and exponentials and logarithms of them.

   Vectors are GCC's and Clang's own, so that the one source serves every instruction set. */

#pragma once
#include "kernel.h"
#include <math.h>

#if defined(__AVX512F__)
#include <immintrin.h>
#define LANES 8
#else
#define LANES 4
#endif

typedef double vec __attribute__((vector_size(8 * LANES), aligned(8), may_alias));
typedef int64_t ivec __attribute__((vector_size(8 * LANES), aligned(8), may_alias));
typedef float half __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

INLINE vec set(double x) { return x - (vec){}; } /* x + 0 would be an addition, for the sake of -0 */
#if defined(__AVX512F__)
INLINE vec widened(const float *p) { return (vec)_mm512_cvtps_pd(_mm256_loadu_ps(p)); } /* GCC converts it in two halves */
#else
INLINE vec widened(const float *p) { return __builtin_convertvector(*(const half *)p, vec); }
#endif
INLINE vec choose(ivec where, vec yes, vec no) { return (vec)((where & (ivec)yes) | (~where & (ivec)no)); }

/* Which lanes are among the first n. */
INLINE ivec first_lanes(int64_t n) {
    ivec lane;
    for (int i = 0; i < LANES; i++) lane[i] = i;
    return lane < n;
}

INLINE double total(vec x) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_pd((__m512d)x);
#else
    return (x[0] + x[1]) + (x[2] + x[3]);
#endif
}

/* exp(x) = 2^n exp(r) with x = n ln 2 + r, |r| <= ln 2 / 2, for x up to 0; 0 below -708. */
INLINE vec exponential(vec x) {
    vec bounded = choose(x < set(-708.0), set(-708.0), x);
    vec shifted = bounded * 1.4426950408889634 + 0x1.8p52; /* the integer lands in the low bits */
    vec n = shifted - 0x1.8p52;
    vec r = bounded - n * 0x1.62e42feep-1 - n * 0x1.a39ef35793c76p-33;
    vec e = set(1.0 / 6227020800.0);
    e = e * r + 1.0 / 479001600.0;
    e = e * r + 1.0 / 39916800.0;
    e = e * r + 1.0 / 3628800.0;
    e = e * r + 1.0 / 362880.0;
    e = e * r + 1.0 / 40320.0;
    e = e * r + 1.0 / 5040.0;
    e = e * r + 1.0 / 720.0;
    e = e * r + 1.0 / 120.0;
    e = e * r + 1.0 / 24.0;
    e = e * r + 1.0 / 6.0;
    e = e * r + 0.5;
    e = e * (r * r) + r + 1.0;
    vec power = (vec)(((ivec)shifted << 52) + ((int64_t)1023 << 52)); /* what stands above the low bits is shifted out */
    return choose(x < set(-708.0), set(0.0), e * power);
}

/* log(1 + x) = n ln 2 + 2 artanh(f / (2 + f)) with 1 + x = 2^n (1 + f), 0 <= f < 1, for x from 0 on. */
INLINE vec log_of_one_more(vec x) {
    ivec exponent = ((ivec)(x + 1.0) >> 52) - 1023;
    vec inverse = (vec)((1023 - exponent) << 52);
    vec f = x * inverse + (inverse - 1.0); /* x itself where n is 0, to the last digit */
    vec s = f / (f + 2.0), square = s * s, sum = set(1.0 / 37);
#pragma GCC unroll 18
    for (int odd = 35; odd > 0; odd -= 2) sum = sum * square + 1.0 / odd;
    vec n = __builtin_convertvector(exponent, vec);
    return n * 0.69314718055994531 + 2.0 * s * sum;
}
