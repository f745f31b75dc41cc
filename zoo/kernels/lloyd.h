/* What the nearest centroids of rows are asked by, also from the kernels that draw the first ones. */

#pragma once
#include "kernel.h"
#include <math.h>

typedef struct {
    int64_t number, features, restarts, clusters;
    int64_t single;          /* whether rows are float */
    double scale;            /* what rows are multiplied by */
    const void *x;           /* (N, D), float or double */
    const void *reference;   /* (D), of the same type, subtracted from rows */
    const double *weight;    /* (N), or NULL */
    const int64_t *index;    /* (N): which of the rows they are, or NULL for the first N */
} Rows;

typedef struct {
    Rows rows; /* of which reference and scale are found here */
    int64_t threads, max_iter;
    double tolerance, eps; /* squared movement at rest, as a share of the mean variance; rounding of a row's number */
    double *centroids;     /* (R, K, D); in and out */
    int32_t *label;        /* (R, N): room; of iterations alone, as the next four */
    uint8_t *empty;        /* (R, K): clusters without rows in the last iteration; out, zeros before */
    int64_t *own_iter;     /* (R); out, zeros before */
    uint8_t *at_rest;      /* (R); out, zeros before */
    int64_t *num_iter;     /* (); out */
    int64_t *nearest;      /* (R, N); out, unless a cluster was empty too soon */
    double *distance;      /* (R, N), squared; out, as `nearest` */
    double *extent;        /* (); out: how far the rows lie apart, by which `strange` judges */
} Iterate;

/* Whether no number holds the square of what lies between the rows; then nothing more is written. */
static inline int strange(double extent) { return (1e150 < extent && extent < INFINITY) || (0 < extent && extent < 1e-150); }

int lloyd_assign(const Iterate *task);  /* writes to the centroids */
int lloyd_iterate(const Iterate *task);
