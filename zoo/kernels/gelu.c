/* GELU x P(x) with P the normal distribution, or its form with tanh, and the way back: see zoo/kernels/gelu.py.

   Each number is read once: a pass of what torch would take over memory is all that it costs. */

#include "vectors.h"

typedef struct {
    int64_t count, tanh, threads;
    const float *x, *d;
    float *y;      /* the results, or d times the slopes */
    float *slopes; /* where they are kept beside the results, which may be where x is; or NULL */
} Gelu;

#define PART 8192 /* numbers that a thread takes at a time */

#define FAR 12.9f /* from which on a tail counts as it does there, 2e-38 */

INLINE vec inverse(vec x) {
#if defined(__AVX512F__)
    const vec r = (vec)_mm512_rcp14_ps((__m512)x); /* and a step of Newton's: half the time of a division */
    return r * (2.0f - x * r);
#else
    return 1.0f / x;
#endif
}

/* The slope at x by that at -|x|. */
INLINE vec turned(vec x, vec slope) {
#if defined(__AVX512F__)
    const __mmask16 above = _mm512_cmp_ps_mask((__m512)x, _mm512_setzero_ps(), _CMP_NLT_UQ);
    return (vec)_mm512_mask_sub_ps((__m512)slope, above, (__m512)set(1.0f), (__m512)slope);
#else
    return choose(x < set(0.0f), slope, 1.0f - slope);
#endif
}

/* The share q that is taken from a = |x| up to FAR: P(-a) = e^(-a^2 / 2) R(a), R as a polynomial of 1 / (1 + 0.3 a)
   within 2e-7 of itself, or 1 / (1 + e^2u); and q + a q' too. */
INLINE vec tail(vec a, int tanh, vec *slope) {
    const vec square = a * a;
    if (tanh) {
        const float c = 1.5957691216f, third = 0.0713548163f; /* 2u = c a + c' a^3 */
        const vec e = exp2_(-1.44269504f * a * (c + third * square)), s = inverse(1.0f + e), q = e * s;
        *slope = q - a * q * s * (c + 3.0f * third * square);
        return q;
    }
    const vec t = inverse(1.0f + 0.3f * a), bell = exp2_within(-0.721347520f * square);
    vec p = set(0.03608939737f) * t - 0.1589358115f;
    p = p * t + 0.2093497183f;
    p = p * t - 0.05645292499f;
    p = p * t + 0.1300339988f;
    p = p * t + 0.09946468139f;
    p = p * t + 0.1208263708f;
    p = p * t + 0.1196245376f;
    const vec q = p * t * bell;
    *slope = q - a * (bell * 0.3989422804f);
    return q;
}

enum { THERE, BACK, BOTH };

/* x (1 - q) above 0 and x q below, in one; or d times the slope. Of infinities these are the limits. */
INLINE void pass(const Gelu *task, int64_t first, int64_t end, int tanh, int way) {
    for (int64_t i = first; i < end; i += LANES) {
        const int n = lanes(end - i);
        const vec x = load(task->x + i, n), zero = set(0.0f), a = bounded(greater(x, -x), 0.0f, FAR);
        vec slope;
        const vec q = tail(a, tanh, &slope);
        if (way != THERE) slope = turned(x, slope);
        if (way == BOTH) store(task->slopes + i, slope, n);
        store(task->y + i, way == BACK ? (vec)(load(task->d + i, n) * slope) : (vec)(greater(x, zero) - a * q), n);
    }
}

INLINE void part(const Gelu *task, int64_t first, int64_t end, int way) {
    if (task->tanh) pass(task, first, end, 1, way);
    else pass(task, first, end, 0, way);
}

KERNEL(gelu, Gelu) {
#pragma omp parallel for num_threads(task->threads) schedule(static) if (task->threads > 1)
    for (int64_t first = 0; first < task->count; first += PART) {
        const int64_t end = least(first + PART, task->count);
        if (task->d) part(task, first, end, BACK);
        else if (task->slopes) part(task, first, end, BOTH);
        else part(task, first, end, THERE);
    }
    return 0;
}
