/* Each operation of a file that includes this first is rounded by itself, and FMA is where torch's vectors have one. */

#pragma once
#if defined(__clang__)
#pragma clang fp contract(off)
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off", "no-math-errno") /* the first undoes the second */
#endif
#include "kernel.h"
#include <math.h>

#if defined(__FMA__)
#define FMA_FLOAT(x, y, z) __builtin_fmaf(x, y, z)
#define FMA_DOUBLE(x, y, z) __builtin_fma(x, y, z)
#else /* nor have torch's on such a processor */
#define FMA_FLOAT(x, y, z) ((x) * (y) + (z))
#define FMA_DOUBLE(x, y, z) ((x) * (y) + (z))
#endif

/* x + share (y - x), from the nearer end, as torch's lerp. */
INLINE float between_float(float x, float y, float share) {
    return share < 0.5f ? FMA_FLOAT(share, y - x, x) : FMA_FLOAT(share - 1, y - x, y);
}
INLINE double between_double(double x, double y, double share) {
    return share < 0.5 ? FMA_DOUBLE(share, y - x, x) : FMA_DOUBLE(share - 1, y - x, y);
}
