/* The hot loops of growing and reading decision trees. Each has a twin in numpy that adds in the same order, so that
 * both give the same bits; contraction into fused multiply-adds is switched off for that.
 *
 * Samples are rows of a matrix x [n][features]. A bin is a sample's place among a feature's split candidates.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

/* Bins of every sample: how many thresholds lie below x, or which category it is (`count` where none is listed).
 * bins is [features][n]; values holds the candidates of all features, those of f from offset[f] to offset[f + 1]. */
void bin(const float *x, int64_t n, int64_t features, const float *values, const int64_t *offset,
         const uint8_t *equal, int32_t *bins) {
    for (int64_t f = 0; f < features; f++) {
        const float *list = values + offset[f];
        const int64_t count = offset[f + 1] - offset[f];
        int32_t *out = bins + f * n;
        for (int64_t i = 0; i < n; i++) {
            const float number = x[i * features + f];
            int64_t low = 0;
            /* A comparison with NaN is false, so NaN stays in bin 0. */
            for (int64_t width = count; width > 0;) {
                const int64_t half = width / 2;
                const int right = list[low + half] < number;
                low += right ? half + 1 : 0;
                width = right ? width - half - 1 : half;
            }
            out[i] = (int32_t)(equal[f] && (low == count || list[low] != number) ? count : low);
        }
    }
}

/* The score of one split of one node out of the sums of its left part and of the whole. */
static inline double score(const double *left, const double *whole, int64_t outputs, int64_t least, int root) {
    const double n_left = left[outputs], n_right = whole[outputs] - n_left;
    if (n_left < (double)least || n_right < (double)least) return -INFINITY;
    double on_left = 0.0, on_right = 0.0;
    for (int64_t d = 0; d < outputs; d++) {
        const double a = left[d], b = whole[d] - a;
        on_left += a * a;
        on_right += b * b;
    }
    const double found = (n_left > 0 ? on_left / n_left : 0.0) + (n_right > 0 ? on_right / n_right : 0.0);
    return root ? sqrt(found) : found;
}

/* The best split of every node (shared = 0) or the one split whose summed score over all nodes is best (shared = 1).
 *
 * gradient [n][outputs]; node [n], below 0 where a sample no longer takes part; used [nodes][levels][2] the (feature,
 * candidate) pairs on each node's path, -1 where none; hist room for nodes * (largest count + 1) * (outputs + 1),
 * whole for nodes * (outputs + 1), running for as many. best [nodes] (or [1]) and chosen [nodes][2] are written; ties
 * go to the first candidate. */
void split(const double *gradient, const int32_t *bins, const int32_t *node, int64_t n, int64_t features,
           int64_t outputs, int64_t nodes, const int64_t *offset, const uint8_t *equal, const double *weight,
           int64_t least, int root, int shared, const int32_t *used, int64_t levels, double *hist, double *whole,
           double *running, double *best, int32_t *chosen) {
    const int64_t width = outputs + 1, answers = shared ? 1 : nodes;
    for (int64_t k = 0; k < answers; k++) {
        best[k] = -INFINITY;
        chosen[2 * k] = chosen[2 * k + 1] = -1;
    }
    for (int64_t f = 0; f < features; f++) {
        const int64_t count = offset[f + 1] - offset[f], stride = (count + 1) * width;
        const int32_t *place = bins + f * n;
        memset(hist, 0, sizeof(double) * (size_t)(nodes * stride));
        for (int64_t i = 0; i < n; i++) {
            if (node[i] < 0) continue;
            double *cell = hist + node[i] * stride + place[i] * width;
            const double *g = gradient + i * outputs;
            for (int64_t d = 0; d < outputs; d++) cell[d] += g[d];
            cell[outputs] += 1.0;
        }
        memset(whole, 0, sizeof(double) * (size_t)(nodes * width));
        for (int64_t k = 0; k < nodes; k++)
            for (int64_t j = 0; j <= count; j++)
                for (int64_t d = 0; d < width; d++) whole[k * width + d] += hist[k * stride + j * width + d];
        memset(running, 0, sizeof(double) * (size_t)(nodes * width));
        for (int64_t j = 0; j < count; j++) {
            double sum = 0.0;
            for (int64_t k = 0; k < nodes; k++) {
                const double *cell = hist + k * stride + j * width;
                double *left = running + k * width;
                for (int64_t d = 0; d < width; d++) left[d] = equal[f] ? cell[d] : left[d] + cell[d];
                double found = score(left, whole + k * width, outputs, least, root);
                for (int64_t l = 0; l < levels; l++) {
                    const int32_t *pair = used + (k * levels + l) * 2;
                    if (pair[0] == f && pair[1] == j) found = -INFINITY;
                }
                found *= found == -INFINITY ? 1.0 : weight[f];
                sum += found;
                if (!shared && found > best[k]) {
                    best[k] = found;
                    chosen[2 * k] = (int32_t)f;
                    chosen[2 * k + 1] = (int32_t)j;
                }
            }
            if (shared && sum > best[0]) {
                best[0] = sum;
                chosen[0] = (int32_t)f;
                chosen[1] = (int32_t)j;
            }
        }
    }
}

/* leaf [rows] that samples reach in one tree. It is read level by level: split `level` where trees are oblivious, else
 * the node that the samples reached. */
static inline void reach(const float *block, int64_t rows, int64_t features, int64_t depth, int oblivious,
                         const int32_t *f, const float *v, const uint8_t *e, int32_t *leaf) {
    memset(leaf, 0, sizeof(int32_t) * (size_t)rows);
    for (int64_t level = 0; level < depth; level++) {
        if (oblivious) {
            const float value = v[level];
            const float *column = block + (f[level] < 0 ? 0 : f[level]);
            if (f[level] < 0) {
                for (int64_t i = 0; i < rows; i++) leaf[i] = 2 * leaf[i];
            } else if (e[level]) {
                for (int64_t i = 0; i < rows; i++) leaf[i] = 2 * leaf[i] + (column[i * features] == value);
            } else {
                for (int64_t i = 0; i < rows; i++) leaf[i] = 2 * leaf[i] + (column[i * features] > value);
            }
        } else {
            for (int64_t i = 0; i < rows; i++) {
                const int64_t at = ((int64_t)1 << level) - 1 + leaf[i];
                const float number = f[at] < 0 ? 0.0f : block[i * features + f[at]];
                const int right = f[at] >= 0 && (e[at] ? number == v[at] : number > v[at]);
                leaf[i] = 2 * leaf[i] + right;
            }
        }
    }
}

/* out [n][columns] += what the trees first .. last - 1 add. Samples go in blocks that stay in the cache. */
void add(const float *x, int64_t n, int64_t features, int64_t first, int64_t last, int64_t depth, int oblivious,
         const int32_t *feature, const float *threshold, const uint8_t *equal, const float *step, int64_t outputs,
         int64_t columns, double *out) {
    enum { BLOCK = 128 };
    const int64_t splits = oblivious ? depth : ((int64_t)1 << depth) - 1, leaves = (int64_t)1 << depth;
    for (int64_t begin = 0; begin < n; begin += BLOCK) {
        const int64_t rows = n - begin < BLOCK ? n - begin : BLOCK;
        for (int64_t t = first; t < last; t++) {
            int32_t leaf[BLOCK];
            reach(x + begin * features, rows, features, depth, oblivious, feature + t * splits, threshold + t * splits,
                  equal + t * splits, leaf);
            const float *moves = step + t * leaves * outputs;
            for (int64_t i = 0; i < rows; i++)
                for (int64_t d = 0; d < columns; d++)
                    out[(begin + i) * columns + d] += (double)moves[leaf[i] * outputs + d];
        }
    }
}

/* The same where columns start .. stop - 1 move by Adam: moments [2][n][columns] of the leaves `value` that a sample
 * reached go along, and scale [T][outputs] is the rate times the correction of the moments' bias. */
void add_adam(const float *x, int64_t n, int64_t features, int64_t first, int64_t last, int64_t depth, int oblivious,
              const int32_t *feature, const float *threshold, const uint8_t *equal, const float *step,
              const float *value, const double *scale, int64_t outputs, int64_t columns, int64_t start, int64_t stop,
              const double *settings, double *moments, double *out) {
    enum { BLOCK = 128 };
    const int64_t splits = oblivious ? depth : ((int64_t)1 << depth) - 1, leaves = (int64_t)1 << depth;
    const double first_decay = settings[0], second_decay = settings[1], eps = settings[2];
    for (int64_t begin = 0; begin < n; begin += BLOCK) {
        const int64_t rows = n - begin < BLOCK ? n - begin : BLOCK;
        for (int64_t t = first; t < last; t++) {
            int32_t leaf[BLOCK];
            reach(x + begin * features, rows, features, depth, oblivious, feature + t * splits, threshold + t * splits,
                  equal + t * splits, leaf);
            for (int64_t i = 0; i < rows; i++) {
                const int64_t from = (t * leaves + leaf[i]) * outputs;
                for (int64_t d = 0; d < columns; d++) {
                    const int64_t at = (begin + i) * columns + d;
                    if (d < start || d >= stop) {
                        out[at] += (double)step[from + d];
                        continue;
                    }
                    const double g = (double)value[from + d];
                    const double m = first_decay * moments[at] + (1.0 - first_decay) * g;
                    const double v = second_decay * moments[n * columns + at] + (1.0 - second_decay) * (g * g);
                    moments[at] = m;
                    moments[n * columns + at] = v;
                    out[at] -= scale[t * outputs + d] * m / (sqrt(v) + eps);
                }
            }
        }
    }
}
