/* What boosting.c takes, for it and for rounds.c, which calls it. Letters: N rows, M nodes, B blocks of rows. */

#pragma once
#include "kernel.h"

enum { LOG_LOSS, SQUARED_ERROR };

typedef struct {
    int64_t rows, loss, threads;
    double weight_unit, gradient_unit;
    const double *mean, *y, *weight; /* (N) each */
    double *largest;                 /* (threads, 2): of h and of |g|; out */
    int64_t *fixed_weight, *fixed_gradient; /* (N) each; out */
} Derive;

typedef struct {
    int64_t rows, loss, threads;
    const double *output, *y, *weight; /* (N) each */
    const int64_t *leaf;               /* (N) */
    const double *value;               /* (M): of a leaf, what its rows' outputs grow by */
    const uint8_t *held_out;           /* (N): rows whose losses are added up apart; or NULL */
    double *after;                     /* (N); out */
    double *sums;                      /* (B, 2): losses of the rows, and of those held out; out */
} Step;

int largest_derivatives(const Derive *task);
int fixed_derivatives(const Derive *task);
int add_leaves(const Step *task);
