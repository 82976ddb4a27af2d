/* A small network, forward and backward, in one call each.

   Compiled for this machine when it is first needed, once for float and once for double (NUMBER, DEGREE);
   `native_mlp.py` calls it. Rows are taken BLOCK at a time through all layers, so that what passes between two layers
   stays in the cache, and stand side by side in vectors: an activation is [features, BLOCK]. Vectors are the
   compiler's own, so there is nothing here for one processor. */

#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef __AVX512F__
#define BYTES 64
#elif defined(__AVX__)
#define BYTES 32
#else
#define BYTES 16
#endif
#define LANES ((int64_t)(BYTES / sizeof(NUMBER)))
#define BLOCK 64
#define MOST 8
#define HALF_LOG_TAU 0.91893853320467274178
/* A tile of a product that the registers hold: HIGH rows of WIDE vectors. */
#define HIGH 6
#define WIDE (BYTES == 32 ? 2 : 4)

/* Of a vector. */
int64_t bytes(void) { return BYTES; }

typedef NUMBER vec __attribute__((vector_size(BYTES), aligned(sizeof(NUMBER)), may_alias));
typedef __typeof__((vec){0} < (vec){0}) ivec;

typedef struct {
    int64_t layers, relu, across, rows;
    int64_t size[MOST + 1];                  /* numbers in and out of every layer */
    const NUMBER *weight[MOST], *bias[MOST]; /* [out, in], or [in, out] where `across`; [out] */
    NUMBER *weight_gradient[MOST], *bias_gradient[MOST];
} Network;

static inline vec all(NUMBER number) { return number - (vec){0}; }

static inline vec chosen(ivec where, vec yes, vec no) { return (vec)(((ivec)yes & where) | ((ivec)no & ~where)); }

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* The multiple of LANES that is not below. */
static inline int64_t whole(int64_t count) { return (count + LANES - 1) / LANES * LANES; }

/* tanh x = e / (e + 2) of e = exp(2 x) - 1, which is 2^n (series of what is left of 2 x) + (2^n - 1). */
static inline vec hyperbolic(vec x) {
    const int single = sizeof(NUMBER) == 4;
    /* Beyond it tanh is 1 to the last bit. */
    const NUMBER limit = single ? 10 : 20;
    vec twice = x + x;
    twice = chosen(twice < all(-2 * limit), all(-2 * limit), twice);
    twice = chosen(twice > all(2 * limit), all(2 * limit), twice);
    /* Adding it leaves a rounded integer in the lowest bits. */
    const vec magic = all((NUMBER)(single ? 0x1.8p23 : 0x1.8p52));
    const vec shifted = twice * all((NUMBER)M_LOG2E) + magic, count = shifted - magic;
    /* log 2 in two parts, the first so short that its products are exact. */
    const double high = single ? 0x1.62ep-1 : 0x1.62e42feep-1;
    const double low = single ? 0x1.0bfbe8e7bcp-15 : 0x1.a39ef35793c76p-33;
    const vec rest = (twice - count * all((NUMBER)high)) - count * all((NUMBER)low);
    vec series = all(1);
    for (int term = DEGREE; term > 1; term--) series = all(1) + series * rest * all((NUMBER)1 / term);
    const vec power = (vec)((ivec)all(1) + ((ivec)shifted << (single ? 23 : 52)));
    const vec less = power * (series * rest) + (power - all(1));
    return less / (less + all(2));
}

/* One tile: c[i, :] = (begin[i] or c[i, :]) + sum over k of a[i, k] b[k, :]. */
static inline __attribute__((always_inline)) void tile(const int high, const int wide, int64_t depth, const NUMBER *a,
                                                       int64_t a_row, int64_t a_depth, const NUMBER *b,
                                                       int64_t b_depth, const NUMBER *begin, NUMBER *c,
                                                       int64_t c_row) {
    vec sum[HIGH][WIDE];
    for (int i = 0; i < high; i++)
        for (int j = 0; j < wide; j++) sum[i][j] = begin ? all(begin[i]) : *(vec *)(c + i * c_row + j * LANES);
    for (int64_t k = 0; k < depth; k++) {
        vec right[WIDE];
        for (int j = 0; j < wide; j++) right[j] = *(const vec *)(b + k * b_depth + j * LANES);
        for (int i = 0; i < high; i++) {
            const vec left = all(a[i * a_row + k * a_depth]);
            for (int j = 0; j < wide; j++) sum[i][j] += left * right[j];
        }
    }
    for (int i = 0; i < high; i++)
        for (int j = 0; j < wide; j++) *(vec *)(c + i * c_row + j * LANES) = sum[i][j];
}

#define ROWS(HIGH_, WIDE_) \
    case HIGH_: \
        tile(HIGH_, WIDE_, depth, left, a_row, a_depth, right, b_depth, first, out, c_row); \
        break;
#define TILES(WIDE_) \
    switch (high) { ROWS(1, WIDE_) ROWS(2, WIDE_) ROWS(3, WIDE_) ROWS(4, WIDE_) ROWS(5, WIDE_) ROWS(6, WIDE_) }

static const NUMBER nothing[HIGH];

/* c [height, width] = begin[:, None], or 0 where begin is `nothing`, or c where it is null, + a [height, depth] b [depth,
   width].

   The width is whole vectors; a row of b, and of c, is b_depth, and c_row, numbers from the next. */
static void product(int64_t height, int64_t width, int64_t depth, const NUMBER *a, int64_t a_row, int64_t a_depth,
                    const NUMBER *b, int64_t b_depth, const NUMBER *begin, NUMBER *c, int64_t c_row) {
    for (int64_t j = 0; j < width;) {
        const int64_t vectors = (width - j) / LANES, wide = vectors >= WIDE ? WIDE : vectors >= 2 ? 2 : 1;
        for (int64_t i = 0; i < height; i += HIGH) {
            const int64_t high = least(HIGH, height - i);
            const NUMBER *left = a + i * a_row, *right = b + j, *first = begin && begin != nothing ? begin + i : begin;
            NUMBER *out = c + i * c_row + j;
            if (wide == WIDE) TILES(WIDE)
            else if (wide == 2) TILES(2)
            else TILES(1)
        }
        j += wide * LANES;
    }
}

/* to [columns, BLOCK] of from [rows, columns], and 0 up to a whole vector of rows. */
static void stand(int64_t rows, int64_t columns, const NUMBER *from, NUMBER *to) {
    for (int64_t column = 0; column < columns; column++) {
        for (int64_t row = 0; row < rows; row++) to[column * BLOCK + row] = from[row * columns + column];
        for (int64_t row = rows; row < whole(rows); row++) to[column * BLOCK + row] = 0;
    }
}

/* to [rows, stride] of from [columns, BLOCK], and 0 up to a whole vector of columns: a few columns at a time, for as many
   rows of memory stay in the cache. */
static void lie(int64_t rows, int64_t columns, const NUMBER *from, NUMBER *to, int64_t stride) {
    int64_t start = 0;
    for (; start + LANES <= columns; start += LANES)
        for (int64_t row = 0; row < rows; row++)
            for (int64_t column = 0; column < LANES; column++)
                to[row * stride + start + column] = from[(start + column) * BLOCK + row];
    for (int64_t row = 0; row < rows; row++) {
        for (int64_t column = start; column < columns; column++) to[row * stride + column] = from[column * BLOCK + row];
        for (int64_t column = columns; column < stride; column++) to[row * stride + column] = 0;
    }
}

static void activate(int relu, int64_t features, int64_t width, NUMBER *x) {
    for (int64_t feature = 0; feature < features; feature++)
        for (int64_t row = 0; row < width; row += LANES) {
            vec *here = (vec *)(x + feature * BLOCK + row);
            if (relu)
                *here = chosen(*here < all(0), all(0), *here);
            else
                *here = hyperbolic(*here);
        }
}

/* The gradient by what was activated into x; the gradient g is overwritten. */
static void activated(int relu, int64_t features, int64_t width, const NUMBER *x, NUMBER *g) {
    for (int64_t feature = 0; feature < features; feature++)
        for (int64_t row = 0; row < width; row += LANES) {
            const vec y = *(const vec *)(x + feature * BLOCK + row);
            vec *here = (vec *)(g + feature * BLOCK + row);
            if (relu)
                *here = chosen(y > all(0), *here, all(0));
            else
                *here *= all(1) - y * y;
        }
}

/* Numbers that a block keeps: the input of every layer. */
static int64_t held(const Network *n) {
    int64_t sum = 0;
    for (int64_t layer = 0; layer < n->layers; layer++) sum += n->size[layer] * BLOCK;
    return sum;
}

/* out [rows, outputs] of x [rows, inputs]. `kept` has room for the inputs of all layers, BLOCK rows at a time, and
   `scratch` for one block of outputs. */
void forward(const Network *n, const NUMBER *x, NUMBER *kept, NUMBER *out, NUMBER *scratch) {
    const int64_t inputs = n->size[0], outputs = n->size[n->layers];
    for (int64_t start = 0; start < n->rows; start += BLOCK, kept += held(n)) {
        const int64_t rows = least(BLOCK, n->rows - start), width = whole(rows);
        NUMBER *here = kept;
        stand(rows, inputs, x + start * inputs, here);
        for (int64_t layer = 0; layer < n->layers; layer++) {
            const int64_t in = n->size[layer], size = n->size[layer + 1];
            const int last = layer == n->layers - 1;
            NUMBER *next = last ? scratch : here + in * BLOCK;
            const int64_t across = n->across;
            product(size, width, in, n->weight[layer], across ? 1 : in, across ? size : 1, here, BLOCK, n->bias[layer],
                    next, BLOCK);
            if (!last) activate(n->relu, size, width, next);
            here = next;
        }
        lie(rows, outputs, here, out + start * outputs, outputs);
    }
}

/* into [height, width] += a b' over the rows of a [height, BLOCK] and b [width, BLOCK], which lies in `lying`. */
static void outer(int64_t rows, int64_t height, int64_t width, const NUMBER *a, const NUMBER *b, NUMBER *into,
                  NUMBER *lying, NUMBER *loose) {
    const int64_t stride = whole(width);
    lie(rows, width, b, lying, stride);
    if (stride == width) {
        product(height, width, rows, a, BLOCK, 1, lying, stride, 0, into, width);
        return;
    }
    product(height, stride, rows, a, BLOCK, 1, lying, stride, nothing, loose, stride);
    for (int64_t i = 0; i < height; i++)
        for (int64_t j = 0; j < width; j++) into[i * width + j] += loose[i * stride + j];
}

/* Adds the gradients of weights and biases (none where they are constants) and of x (none where it is null), given
   that of the outputs [rows, outputs].

   `scratch` has room for three blocks of the widest layer and for the widest weight, its rows whole vectors. */
void backward(const Network *n, const NUMBER *kept, const NUMBER *gradient, NUMBER *x_gradient, NUMBER *scratch) {
    const int64_t inputs = n->size[0], outputs = n->size[n->layers], block = held(n);
    int64_t widest = 0;
    for (int64_t layer = 0; layer <= n->layers; layer++) widest = n->size[layer] > widest ? n->size[layer] : widest;
    NUMBER *above = scratch, *below = above + widest * BLOCK, *lying = below + widest * BLOCK;
    NUMBER *loose = lying + whole(widest) * BLOCK;
    for (int64_t start = 0; start < n->rows; start += BLOCK, kept += block) {
        const int64_t rows = least(BLOCK, n->rows - start), width = whole(rows);
        const NUMBER *here = kept + block;
        stand(rows, outputs, gradient + start * outputs, above);
        for (int64_t layer = n->layers - 1; layer >= 0; layer--) {
            const int64_t in = n->size[layer], size = n->size[layer + 1];
            here -= in * BLOCK;
            if (n->weight_gradient[layer]) {
                for (int64_t i = 0; i < size; i++) {
                    vec sum = {0};
                    for (int64_t row = 0; row < width; row += LANES) sum += *(const vec *)(above + i * BLOCK + row);
                    for (int64_t lane = 0; lane < LANES; lane++) n->bias_gradient[layer][i] += sum[lane];
                }
                if (n->across)
                    outer(rows, in, size, here, above, n->weight_gradient[layer], lying, loose);
                else
                    outer(rows, size, in, above, here, n->weight_gradient[layer], lying, loose);
            }
            if (!layer && !x_gradient) break;
            product(in, width, size, n->weight[layer], n->across ? size : 1, n->across ? 1 : in, above, BLOCK, nothing,
                    below, BLOCK);
            if (layer) activated(n->relu, in, width, here, below);
            NUMBER *swapped = above;
            above = below;
            below = swapped;
        }
        if (!x_gradient) continue;
        for (int64_t row = 0; row < rows; row++)
            for (int64_t i = 0; i < inputs; i++) x_gradient[(start + row) * inputs + i] += above[i * BLOCK + row];
    }
}

/* Log-probs [rows] of actions [rows, size] under independent normal numbers; the means become the standardised distances
   of the actions. */
void density(int64_t rows, int64_t size, const NUMBER *log_std, const NUMBER *action, NUMBER *mean, NUMBER *log_prob) {
    NUMBER constant = 0;
    for (int64_t i = 0; i < size; i++) constant += log_std[i] + (NUMBER)HALF_LOG_TAU;
    for (int64_t row = 0; row < rows; row++) log_prob[row] = 0;
    for (int64_t i = 0; i < size; i++) {
        const NUMBER inverse = (NUMBER)exp(-(double)log_std[i]);
        for (int64_t row = 0; row < rows; row++) {
            NUMBER *x = mean + row * size + i;
            *x = (action[row * size + i] - *x) * inverse;
            log_prob[row] += *x * *x;
        }
    }
    for (int64_t row = 0; row < rows; row++) log_prob[row] = (NUMBER)-0.5 * log_prob[row] - constant;
}

/* The gradient by the means, given that by the log-probs; adds that by log_std. */
void density_backward(int64_t rows, int64_t size, const NUMBER *log_std, const NUMBER *gradient, const NUMBER *distance,
                      NUMBER *mean_gradient, NUMBER *log_std_gradient) {
    for (int64_t i = 0; i < size; i++) {
        const NUMBER inverse = (NUMBER)exp(-(double)log_std[i]);
        NUMBER sum = 0;
        for (int64_t row = 0; row < rows; row++) {
            const NUMBER x = distance[row * size + i];
            sum += gradient[row] * (x * x - 1);
            mean_gradient[row * size + i] = gradient[row] * x * inverse;
        }
        log_std_gradient[i] += sum;
    }
}
