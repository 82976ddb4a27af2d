/* Adam with clipping: one pass over the gradients, and one over everything.

   Compiled for this machine when it is first needed, once for float and once for double (NUMBER); `native_adam.py`
   calls it. What is rounded, and where, is as in PyTorch's fused kernel, so nothing may be contracted but what says so. */

#include <math.h>
#include <stdint.h>

typedef struct {
    double rate, first_decay, second_decay, eps, weight_decay;
    double limit; /* of the gradient's norm; negative does not clip */
} Constants;

/* Partial sums that do not wait for each other. */
#define SUMS 16

static inline NUMBER fused(NUMBER a, NUMBER b, NUMBER c) {
    return sizeof(NUMBER) == 4 ? (NUMBER)fmaf((float)a, (float)b, (float)c) : (NUMBER)fma((double)a, (double)b, (double)c);
}

static inline NUMBER root(NUMBER x) { return sizeof(NUMBER) == 4 ? (NUMBER)sqrtf((float)x) : (NUMBER)sqrt((double)x); }

/* Moves every parameter; returns the Euclidean norm of all gradients together, before clipping.

   `places` holds how many numbers each parameter has, then where their first moments are, their second moments, they
   themselves, and their gradients; `steps` how many steps each has taken, this one included. */
double step(int64_t count, const int64_t *places, const float *steps, const Constants *c) {
    const int64_t *sizes = places, *firsts = places + count, *seconds = places + 2 * count;
    const int64_t *parameters = places + 3 * count, *gradients = places + 4 * count;
    double sums[SUMS] = {0}, square = 0;
    for (int64_t one = 0; one < count; one++) {
        const int64_t size = sizes[one];
        const NUMBER *gradient = (const NUMBER *)gradients[one];
        int64_t i = 0;
        for (; i + SUMS <= size; i += SUMS)
            for (int64_t j = 0; j < SUMS; j++) sums[j] += (double)gradient[i + j] * (double)gradient[i + j];
        for (; i < size; i++) square += (double)gradient[i] * (double)gradient[i];
    }
    for (int64_t j = 0; j < SUMS; j++) square += sums[j];
    const double norm = sqrt(square), ratio = c->limit < 0 ? 1 : c->limit / (norm + 1e-6);
    /* What is not a number is passed on. */
    const NUMBER factor = (NUMBER)(ratio > 1 ? 1 : ratio), kept = (NUMBER)(1 - c->rate * c->weight_decay);
    const NUMBER towards = (NUMBER)(1 - c->first_decay), eps = (NUMBER)c->eps;
    const NUMBER decay = (NUMBER)c->second_decay, fresh = (NUMBER)(1 - c->second_decay);
    for (int64_t one = 0; one < count; one++) {
        const int64_t size = sizes[one];
        NUMBER *restrict parameter = (NUMBER *)parameters[one];
        const NUMBER *restrict gradient = (const NUMBER *)gradients[one];
        NUMBER *restrict first = (NUMBER *)firsts[one], *restrict second = (NUMBER *)seconds[one];
        const NUMBER way = (NUMBER)(c->rate / (1 - pow(c->first_decay, steps[one])));
        const NUMBER correction = (NUMBER)sqrt(1 - pow(c->second_decay, steps[one]));
        for (int64_t i = 0; i < size; i++) {
            const NUMBER g = gradient[i] * factor;
            first[i] = fused(towards, g - first[i], first[i]);
            second[i] = fused(fresh * g, g, second[i] * decay);
            parameter[i] = parameter[i] * kept - way * first[i] / (root(second[i]) / correction + eps);
        }
    }
    return norm;
}
