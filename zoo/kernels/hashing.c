/* Hashes of rows by their content, as zoo.numerics.hashing makes them: whatever the type of their numbers.

   Letters: N rows, D features. */

#include "kernel.h"

typedef struct {
    int64_t rows, features;
    int64_t single;         /* whether rows are float */
    int64_t mix;            /* whether the sums are mixed, as SplitMix64 does with a counter */
    const void *x;          /* (N, D), float or double */
    const int64_t *factors; /* (D) */
    int64_t *hash;          /* (N); out */
} Hashes;

/* The bits of a number, + 0.0 of which turns -0 into 0; numbers of few digits differ in their upper half only. */
INLINE uint64_t bits_of(double x) {
    int64_t bits;
    x += 0.0;
    memcpy(&bits, &x, sizeof bits);
    return (uint64_t)(bits ^ (bits >> 32));
}

INLINE uint64_t mixed(uint64_t counter) {
    const uint64_t gamma = 0x9E3779B97F4A7C15u;
    uint64_t z = counter * gamma + gamma;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

KERNEL(hash_rows, Hashes) {
    const int64_t D = task->features;
    for (int64_t i = 0; i < task->rows; i++) {
        const float *single = (const float *)task->x + i * D;
        const double *twice = (const double *)task->x + i * D;
        uint64_t sum = 0;
        if (task->single)
            for (int64_t f = 0; f < D; f++) sum += bits_of(single[f]) * (uint64_t)task->factors[f];
        else
            for (int64_t f = 0; f < D; f++) sum += bits_of(twice[f]) * (uint64_t)task->factors[f];
        task->hash[i] = (int64_t)sum;
    }
    for (int64_t i = 0; i < task->rows && task->mix; i++) task->hash[i] = (int64_t)mixed((uint64_t)task->hash[i]);
    return 0;
}
