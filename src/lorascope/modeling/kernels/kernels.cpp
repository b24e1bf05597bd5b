// Element-wise and attention kernels of a training step, each one pass over its operands, where Torch's operations
// would make several. Plain C interface, no Torch headers: it compiles in seconds, and ctypes can call it.
//
// Storage is float, double or bfloat16. Arithmetic is double for double and float for the others; a result is rounded
// once, when it is stored. Reductions run in an order that depends on shapes alone, never on the number of threads.
// Vectors are GCC's vector extension, which Clang has too: 16 lanes, whatever the processor makes of them.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

namespace {

constexpr int64_t kLanes = 16;

struct bfloat16 {
    uint16_t bits;
};

template <class T> struct compute { using type = float; };
template <> struct compute<double> { using type = double; };
template <class T> using compute_t = typename compute<T>::type;

typedef float floats __attribute__((vector_size(64)));
typedef double doubles __attribute__((vector_size(128)));
typedef uint32_t words __attribute__((vector_size(64)));
typedef uint16_t halves __attribute__((vector_size(32)));
template <class C> struct lanes { using type = floats; };
template <> struct lanes<double> { using type = doubles; };
template <class C> using lanes_t = typename lanes<C>::type;

// --- 16 numbers from memory and back

inline floats load(const bfloat16* from) {
    halves bits;
    std::memcpy(&bits, from, sizeof bits);
    const words wide = __builtin_convertvector(bits, words) << 16;
    floats x;
    std::memcpy(&x, &wide, sizeof x);
    return x;
}
template <class C> lanes_t<C> load(const C* from) {
    lanes_t<C> x;
    std::memcpy(&x, from, sizeof x);
    return x;
}

inline void store(bfloat16* to, floats x) {
#ifdef __AVX512BF16__
    const __m256bh rounded = _mm512_cvtneps_pbh((__m512)x);
    std::memcpy(to, &rounded, sizeof rounded);
#else
    words bits;
    std::memcpy(&bits, &x, sizeof bits);
    words rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;  // to the nearest, ties to even
    rounded = x == x ? rounded : words{} + 0x7fc0u;  // rounding could turn a NaN into a number
    const halves result = __builtin_convertvector(rounded, halves);
    std::memcpy(to, &result, sizeof result);
#endif
}
template <class C> void store(C* to, lanes_t<C> x) { std::memcpy(to, &x, sizeof x); }

// The same for the last elements of a row, fewer than 16: the lanes behind them are zero, and are not stored.
template <class T> lanes_t<compute_t<T>> load(const T* from, int64_t count) {
    if (__builtin_expect(count >= kLanes, 1)) return load(from);
    T part[kLanes] = {};
    std::copy_n(from, count, part);
    return load(part);
}
template <class T> void store(T* to, lanes_t<compute_t<T>> x, int64_t count) {
    if (__builtin_expect(count >= kLanes, 1)) return store(to, x);
    T part[kLanes];
    store(part, x);
    std::copy_n(part, count, to);
}

template <class C> C sum_of(lanes_t<C> x) {
    C sum = 0;
    for (int64_t l = 0; l < kLanes; ++l) sum += x[l];
    return sum;
}

// --- functions of 16 numbers

typedef int32_t lane_mask __attribute__((vector_size(64)));  // -1 where chosen, 0 elsewhere

inline floats where(lane_mask chosen, floats x, float other) { return chosen ? x : floats{} + other; }
inline doubles where(lane_mask chosen, doubles x, double other) {
    for (int64_t l = 0; l < kLanes; ++l) x[l] = chosen[l] ? x[l] : other;
    return x;
}

// Lanes [first, stop); the bounds may lie outside of the vector.
inline lane_mask lanes_between(int64_t first, int64_t stop) {
    const lane_mask lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const auto near = [](int64_t bound) { return int32_t(std::clamp<int64_t>(bound, 0, kLanes)); };
    return (lane >= near(first)) & (lane < near(stop));
}

// exp of numbers up to 0: 2^n from the exponent bits, the rest from a polynomial (Cephes' expf coefficients); relative
// error below 2e-7, and 0 below -87. A NaN stays a NaN.
inline floats exp_of_negative(floats x) {
    const floats least = floats{} - 87.0f, clamped = x < least ? least : x;
    const floats shifted = clamped * 1.44269504f + 12582912.0f;  // the whole part stands in the lowest bits
    const floats whole = shifted - 12582912.0f;
    const floats r = clamped - whole * 0.693359375f - whole * -2.12194440e-4f;
    floats p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    words exponent, bits;
    std::memcpy(&exponent, &shifted, sizeof exponent);
    std::memcpy(&bits, &p, sizeof bits);
    bits += exponent << 23;
    std::memcpy(&p, &bits, sizeof p);
    return p;
}
inline doubles exp_of_negative(doubles x) {
    for (int64_t l = 0; l < kLanes; ++l) x[l] = std::exp(x[l]);
    return x;
}

inline floats reciprocal(floats x) {
#ifdef __AVX512F__
    const floats y = (floats)_mm512_rcp14_ps((__m512)x);  // 14 bits, and one step of Newton's method
    return y * (2.0f - x * y);
#else
    return 1.0f / x;
#endif
}
inline doubles reciprocal(doubles x) { return 1.0 / x; }

template <class V> V sigmoid(V x) {
    const V e = exp_of_negative(x < 0 ? x : -x), positive = reciprocal(1 + e);
    return x < 0 ? e * positive : positive;
}

// ---------------------------------------------------------------------------------------------------------------------
// Root mean square norm (Zhang and Sennrich 2019, arXiv 1910.07467, equation 4), weight frozen

template <class T>
void rms_norm_forward(int64_t n, int64_t d, const T* x, const T* weight, double eps, T* y, compute_t<T>* inverse) {
    using C = compute_t<T>;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; ++i) {
        const T* row = x + i * d;
        lanes_t<C> squares = {};
        for (int64_t j = 0; j < d; j += kLanes) {
            const lanes_t<C> value = load(row + j, d - j);
            squares += value * value;
        }
        const C factor = C(1) / std::sqrt(sum_of<C>(squares) / C(d) + C(eps));
        inverse[i] = factor;
        for (int64_t j = 0; j < d; j += kLanes)
            store(y + i * d + j, load(row + j, d - j) * factor * load(weight + j, d - j), d - j);
    }
}

template <class T>
void rms_norm_backward(int64_t n, int64_t d, const T* x, const T* weight, const compute_t<T>* inverse, const T* dy,
                       T* dx) {
    using C = compute_t<T>;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; ++i) {
        const T *row = x + i * d, *grad = dy + i * d;
        lanes_t<C> dot = {};
        for (int64_t j = 0; j < d; j += kLanes)
            dot += load(row + j, d - j) * load(weight + j, d - j) * load(grad + j, d - j);
        const C factor = inverse[i], mean = sum_of<C>(dot) / C(d) * factor * factor;
        for (int64_t j = 0; j < d; j += kLanes)
            store(dx + i * d + j,
                  factor * (load(weight + j, d - j) * load(grad + j, d - j) - load(row + j, d - j) * mean), d - j);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// SiLU(gate) * up, the middle of a gated feed-forward layer (Shazeer 2020, arXiv 2002.05202)

template <class T> void silu_mul_forward(int64_t n, int64_t d, const T* gate, const T* up, T* y) {
    using V = lanes_t<compute_t<T>>;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; ++i) {
        for (int64_t j = i * d, left = d; left > 0; j += kLanes, left -= kLanes) {
            const V g = load(gate + j, left);
            store(y + j, g * sigmoid(g) * load(up + j, left), left);
        }
    }
}

template <class T>
void silu_mul_backward(int64_t n, int64_t d, const T* gate, const T* up, const T* dy, T* dgate, T* dup) {
    using V = lanes_t<compute_t<T>>;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; ++i) {
        for (int64_t j = i * d, left = d; left > 0; j += kLanes, left -= kLanes) {
            const V g = load(gate + j, left), grad = load(dy + j, left), s = sigmoid(g);
            store(dgate + j, grad * load(up + j, left) * s * (1 + g * (1 - s)), left);
            store(dup + j, grad * g * s, left);
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Cross entropy of logits [n, v]: the nats of each target, and softmax - onehot written over the logits

template <class T>
void cross_entropy(int64_t n, int64_t v, T* logits, const int64_t* targets, compute_t<T>* nats, int64_t wants_grad) {
    using C = compute_t<T>;
    using V = lanes_t<C>;
#pragma omp parallel
    {
        std::vector<C> exponentials(v + kLanes);
#pragma omp for schedule(static)
        for (int64_t i = 0; i < n; ++i) {
            T* row = logits + i * v;
            C largest = -std::numeric_limits<C>::infinity();
            V most = V{} + largest, sums = {};
            for (int64_t j = 0; j < v; j += kLanes) {
                const V x = where(lanes_between(0, v - j), load(row + j, v - j), largest);
                most = x > most ? x : most;
            }
            for (int64_t l = 0; l < kLanes; ++l) largest = std::max<C>(largest, most[l]);
            for (int64_t j = 0; j < v; j += kLanes) {
                const V e = where(lanes_between(0, v - j), exp_of_negative(load(row + j, v - j) - largest), 0);
                store(exponentials.data() + j, e);
                sums += e;
            }
            const int64_t target = targets[i];
            const C sum = sum_of<C>(sums), inverse = C(1) / sum;
            nats[i] = largest + std::log(sum) - load(row + target, 1)[0];
            if (!wants_grad) continue;
            for (int64_t j = 0; j < v; j += kLanes)
                store(row + j, load(exponentials.data() + j) * inverse, v - j);
            store(row + target, V{} + exponentials[target] * inverse - 1, 1);
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Dropout from a counter: Threefry-4x32 with 12 rounds (Salmon et al. 2011, Parallel random numbers: as easy as 1, 2, 3)
//
// Elements of a row come in blocks of 128; lane l of a block takes the counter (block * 16 + l, draw), and its four
// words give, low half first, the 16 bits of elements l, 16 + l, ..., 112 + l. modeling/dropout.py has the same in NumPy.

constexpr int64_t kBlock = 128;

template <int kLeft> words rotated(words x) { return x << kLeft | x >> (32 - kLeft); }

template <int kFirst, int kSecond> void mix(words& a, words& b, words& c, words& d) {
    a += b, b = rotated<kFirst>(b) ^ a;
    c += d, d = rotated<kSecond>(d) ^ c;
}

inline void threefry(const uint32_t key[4], uint32_t first, uint32_t draw, words out[4]) {
    const uint32_t keys[5] = {key[0], key[1], key[2], key[3], 0x1BD11BDAu ^ key[0] ^ key[1] ^ key[2] ^ key[3]};
    const words lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, none = {};
    words a = lane + first + keys[0], b = none + draw + keys[1], c = none + keys[2], d = none + keys[3];
    const auto inject = [&](uint32_t turn) {
        a += keys[turn % 5], b += keys[(turn + 1) % 5], c += keys[(turn + 2) % 5], d += keys[(turn + 3) % 5] + turn;
    };
    for (uint32_t turn = 1; turn < 4; turn += 2) {
        mix<10, 26>(a, b, c, d), mix<11, 21>(a, d, c, b), mix<13, 27>(a, b, c, d), mix<23, 5>(a, d, c, b);
        inject(turn);
        if (turn == 3) break;
        mix<6, 20>(a, b, c, d), mix<17, 11>(a, d, c, b), mix<25, 10>(a, b, c, d), mix<18, 20>(a, d, c, b);
        inject(turn + 1);
    }
    out[0] = a, out[1] = b, out[2] = c, out[3] = d;
}

// Calls use(first element, elements, kept) for up to 16 elements at a time of every row; what lies behind a row's
// tokens is kept.
template <class Use>
void for_each_lanes(int64_t rows, int64_t d, const int64_t* starts, const int64_t* lengths, const int64_t* widths,
                    const uint32_t* keys, int64_t draw, int64_t drop_below, Use use) {
    std::vector<int64_t> first_block(rows + 1, 0);
    for (int64_t row = 0; row < rows; ++row)
        first_block[row + 1] = first_block[row] + (widths[row] * d + kBlock - 1) / kBlock;
    const uint32_t below = uint32_t(drop_below);
#pragma omp parallel
    {
        int64_t row = 0;
#pragma omp for schedule(static)
        for (int64_t block = 0; block < first_block[rows]; ++block) {
            while (block >= first_block[row + 1]) ++row;
            const int64_t within = (block - first_block[row]) * kBlock;
            words bits[4];
            threefry(keys + 4 * row, uint32_t(within / kBlock * kLanes), uint32_t(draw), bits);
            for (int64_t part = 0; part < kBlock / kLanes; ++part) {
                const int64_t at = within + part * kLanes, left = widths[row] * d - at, real = lengths[row] * d - at;
                if (left <= 0) break;
                const words drawn = part % 2 == 0 ? bits[part / 2] & 0xffffu : bits[part / 2] >> 16;
                const lane_mask kept = drawn >= below;
                use(starts[row] * d + at, left, kept | lanes_between(real, kLanes));
            }
        }
    }
}

// out = x where kept, else 0; the caller scales
template <class T>
void dropout(int64_t rows, int64_t d, const int64_t* starts, const int64_t* lengths, const int64_t* widths,
             const uint32_t* keys, int64_t draw, int64_t drop_below, const T* x, T* out) {
    for_each_lanes(rows, d, starts, lengths, widths, keys, draw, drop_below,
                   [=](int64_t at, int64_t count, lane_mask kept) {
                       store(out + at, where(kept, load(x + at, count), 0), count);
                   });
}

// out += x where kept
template <class T>
void add_dropped(int64_t rows, int64_t d, const int64_t* starts, const int64_t* lengths, const int64_t* widths,
                 const uint32_t* keys, int64_t draw, int64_t drop_below, const T* x, T* out) {
    for_each_lanes(rows, d, starts, lengths, widths, keys, draw, drop_below,
                   [=](int64_t at, int64_t count, lane_mask kept) {
                       store(out + at, load(out + at, count) + where(kept, load(x + at, count), 0), count);
                   });
}

// ---------------------------------------------------------------------------------------------------------------------
// Causal attention inside each row of a packed pass. A task is one row and one key-value head; the scores of a block of
// queries exist at once, so memory grows with the length, not with its square. The backward pass makes the
// probabilities anew from the forward pass's log-sum-exp (Dao et al. 2022, arXiv 2205.14135, section 3.1).

constexpr int64_t kQueries = 32, kRows = 8, kWide = 2 * kLanes;

inline int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// C[8, 16 kVectors] (+)= A[8, k] B[k, 16 kVectors]; element (i, p) of A lies at a[i * a_row + p * a_col]. The sums stay
// in registers.
template <int64_t kVectors, class C>
void product_tile(int64_t k, const C* a, int64_t a_row, int64_t a_col, const C* b, int64_t ldb, C* c, int64_t ldc,
                  bool add) {
    lanes_t<C> sums[kRows][kVectors] = {};
    for (int64_t p = 0; p < k; ++p) {
        lanes_t<C> from[kVectors];
        for (int64_t t = 0; t < kVectors; ++t) from[t] = load(b + p * ldb + t * kLanes);
        for (int64_t r = 0; r < kRows; ++r)
            for (int64_t t = 0; t < kVectors; ++t) sums[r][t] += a[r * a_row + p * a_col] * from[t];
    }
    for (int64_t r = 0; r < kRows; ++r)
        for (int64_t t = 0; t < kVectors; ++t) {
            C* to = c + r * ldc + t * kLanes;
            store(to, add ? load(to) + sums[r][t] : sums[r][t]);
        }
}

// Where B[k, n] lies: panels of 32 columns, `panel` apart, each with its rows `row` apart.
template <class C> struct Right {
    const C* b;
    int64_t row, panel;
};

// C[m, n] (+)= A B, m a multiple of 8 and n of 16.
template <class C>
void product(int64_t m, int64_t n, int64_t k, const C* a, int64_t a_row, int64_t a_col, Right<C> right, C* c,
             int64_t ldc, bool add) {
    for (int64_t j = 0; j < n; j += kWide) {
        const C* b = right.b + j / kWide * right.panel;
        for (int64_t i = 0; i < m; i += kRows) {
            if (j + kWide <= n)
                product_tile<2>(k, a + i * a_row, a_row, a_col, b, right.row, c + i * ldc + j, ldc, add);
            else
                product_tile<1>(k, a + i * a_row, a_row, a_col, b, right.row, c + i * ldc + j, ldc, add);
        }
    }
}

// What all tasks of one attention call share. Token t of head h begins at pointer + t * stride + h * d.
template <class T> struct Heads {
    int64_t heads, kv_heads, d, q_stride, k_stride, v_stride, window;
    compute_t<T> scale;
    const T *q, *k, *v, *cosine, *sine;  // cosine and sine [tokens, d], or null without rotary positions
};

// Reads one token of one head, turned by its rotary angle (Su et al. 2021, arXiv 2104.09864, equation 34; the halves of
// a head are paired, as in Llama).
template <class T>
void read_token(const Heads<T>& at, const T* from, int64_t token, bool turn, compute_t<T> factor, compute_t<T>* to) {
    using V = lanes_t<compute_t<T>>;
    const int64_t d = at.d, half = d / 2;
    if (!turn || at.cosine == nullptr) {
        for (int64_t j = 0; j < d; j += kLanes) store(to + j, factor * load(from + j, d - j), d - j);
        return;
    }
    const T *c = at.cosine + token * d, *s = at.sine + token * d;
    for (int64_t j = 0, left = half; left > 0; j += kLanes, left -= kLanes) {
        const V low = load(from + j, left), high = load(from + j + half, left);
        store(to + j, factor * (low * load(c + j, left) - high * load(s + j, left)), left);
        store(to + j + half, factor * (high * load(c + j + half, left) + low * load(s + j + half, left)), left);
    }
}

// Writes the gradient of one token of one head, turned back.
template <class T>
void write_token(const Heads<T>& at, const compute_t<T>* from, int64_t token, bool turn, compute_t<T> factor, T* to) {
    using V = lanes_t<compute_t<T>>;
    const int64_t d = at.d, half = d / 2;
    if (!turn || at.cosine == nullptr) {
        for (int64_t j = 0; j < d; j += kLanes) store(to + j, factor * load(from + j, d - j), d - j);
        return;
    }
    const T *c = at.cosine + token * d, *s = at.sine + token * d;
    for (int64_t j = 0, left = half; left > 0; j += kLanes, left -= kLanes) {
        const V low = load(from + j, left), high = load(from + j + half, left);
        store(to + j, factor * (low * load(c + j, left) + high * load(s + j + half, left)), left);
        store(to + j + half, factor * (high * load(c + j + half, left) - low * load(s + j, left)), left);
    }
}

// A block of queries, [first, stop) and filled up to `padded` of them; they may look at keys [low, high).
struct Block {
    int64_t first, stop, padded, low, high;
};

// Scratch of one thread, for one row and one key-value head at a time: keys, values and their gradients [line, dp],
// transposes in panels of 32 keys [line / 32, dp, 32], blocks of queries [32, dp] and of scores [32, line]. Widths are whole vectors, lines whole
// tiles; what lies behind a row's keys is zero where it is multiplied.
template <class C> struct Scratch {
    std::vector<C> memory;
    int64_t line = 0, dp = 0;
    C *k, *v, *k_t, *v_t, *dk, *dv, *q, *out, *dq, *scores, *dscores;

    void fit(int64_t length, int64_t d) {
        line = round_up(length, kWide), dp = round_up(d, kLanes);
        const size_t keys = line * dp, queries = kQueries * dp, square = kQueries * line;
        const size_t needed = 6 * keys + 3 * queries + 2 * square;
        if (memory.size() < needed) memory.resize(needed);
        C* at = memory.data();
        for (C** part : {&k, &v, &k_t, &v_t, &dk, &dv}) *part = at, at += keys;
        for (C** part : {&q, &out, &dq}) *part = at, at += queries;
        scores = at, dscores = at + square;
    }
    Right<C> panels(const C* transposed, const Block& b) const { return {transposed + b.low * dp, kWide, dp * kWide}; }
    Right<C> rows(const C* from) const { return {from, dp, kWide}; }
};

inline int64_t first_key(int64_t query, int64_t window) {
    return window > 0 && query - window + 1 > 0 ? query - window + 1 : 0;
}

inline Block query_block(int64_t first, int64_t length, int64_t window) {
    const int64_t stop = std::min(first + kQueries, length);
    return {first, stop, round_up(stop - first, kRows), first_key(first, window) / kWide * kWide,
            round_up(stop, kWide)};
}

// From [n, d] to panels [n / 32, d, 32], so that a tile of a product with the transpose reads one stretch of memory.
template <class C> void transpose(const C* from, int64_t n, int64_t d, C* to) {
    for (int64_t j = 0; j < n; ++j)
        for (int64_t e = 0; e < d; ++e) to[(j / kWide * d + e) * kWide + j % kWide] = from[j * d + e];
}

template <class T>
void read_keys(const Heads<T>& at, int64_t start, int64_t length, int64_t kv_head, Scratch<compute_t<T>>& s) {
    using C = compute_t<T>;
    s.fit(length, at.d);
    if (at.d < s.dp) std::fill_n(s.k, s.line * s.dp, C(0)), std::fill_n(s.v, s.line * s.dp, C(0));
    for (int64_t j = 0; j < length; ++j) {
        const int64_t token = start + j;
        read_token(at, at.k + token * at.k_stride + kv_head * at.d, token, true, C(1), s.k + j * s.dp);
        read_token(at, at.v + token * at.v_stride + kv_head * at.d, token, false, C(1), s.v + j * s.dp);
    }
    std::fill(s.k + length * s.dp, s.k + s.line * s.dp, C(0));
    std::fill(s.v + length * s.dp, s.v + s.line * s.dp, C(0));
    transpose(s.k, s.line, s.dp, s.k_t);
}

// Reads the tokens of a block of queries, from q or from the gradient of the output, and fills up with zeros.
template <class T>
void read_block(const Heads<T>& at, const Block& b, const T* from, int64_t stride, int64_t start, bool turn,
                compute_t<T> factor, compute_t<T>* to, int64_t dp) {
    using C = compute_t<T>;
    for (int64_t i = b.first; i < b.stop; ++i)
        read_token(at, from + (start + i) * stride, start + i, turn, factor, to + (i - b.first) * dp);
    std::fill(to + (b.stop - b.first) * dp, to + b.padded * dp, C(0));
}

// Scores of a block, scaled, into s.scores; those that a query may not see come out as anything.
template <class T>
void block_scores(const Heads<T>& at, const Block& b, int64_t start, int64_t head, Scratch<compute_t<T>>& s) {
    read_block(at, b, at.q + head * at.d, at.q_stride, start, true, at.scale, s.q, s.dp);
    product(b.padded, b.high - b.low, at.d, s.q, s.dp, 1, s.panels(s.k_t, b), s.scores + b.low, s.line, false);
}

// Softmax in place of one query's scores in a block, zero outside of the keys [first, stop) that it may see; returns the
// log of the sum of exponentials.
template <class C> C softmax(C* row, const Block& b, int64_t first, int64_t stop) {
    using V = lanes_t<C>;
    C largest = -std::numeric_limits<C>::infinity();
    V most = V{} + largest, sums = {};
    for (int64_t j = b.low; j < b.high; j += kLanes) {
        const V x = where(lanes_between(first - j, stop - j), load(row + j), largest);
        most = x > most ? x : most;
    }
    for (int64_t l = 0; l < kLanes; ++l) largest = std::max<C>(largest, most[l]);
    for (int64_t j = b.low; j < b.high; j += kLanes) {
        const V e = where(lanes_between(first - j, stop - j), exp_of_negative(load(row + j) - largest), 0);
        store(row + j, e);
        sums += e;
    }
    const C sum = sum_of<C>(sums), inverse = C(1) / sum;
    for (int64_t j = b.low; j < b.high; j += kLanes) store(row + j, load(row + j) * inverse);
    return largest + std::log(sum);
}

template <class T>
void attention_forward(int64_t rows, const int64_t* starts, const int64_t* lengths, const int64_t* widths,
                       int64_t heads, int64_t kv_heads, int64_t d, int64_t q_stride, int64_t k_stride,
                       int64_t v_stride, int64_t window, double scale, const T* q, const T* k, const T* v,
                       const T* cosine, const T* sine, T* out, compute_t<T>* log_sums) {
    using C = compute_t<T>;
    const Heads<T> at{heads, kv_heads, d, q_stride, k_stride, v_stride, window, C(scale), q, k, v, cosine, sine};
    const int64_t group = heads / kv_heads, token_stride = heads * d;
#pragma omp parallel
    {
        Scratch<C> s;
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < rows * kv_heads; ++task) {
            const int64_t row = task / kv_heads, kv = task % kv_heads, start = starts[row], n = lengths[row];
            read_keys(at, start, n, kv, s);
            for (int64_t head = kv * group; head < (kv + 1) * group; ++head) {
                for (int64_t first = 0; first < n; first += kQueries) {
                    const Block b = query_block(first, n, window);
                    block_scores(at, b, start, head, s);
                    for (int64_t i = b.first; i < b.stop; ++i)
                        log_sums[(start + i) * heads + head] =
                            softmax(s.scores + (i - b.first) * s.line, b, first_key(i, window), i + 1);
                    product(b.padded, s.dp, b.high - b.low, s.scores + b.low, s.line, 1, s.rows(s.v + b.low * s.dp),
                            s.out, s.dp, false);
                    for (int64_t i = b.first; i < b.stop; ++i)
                        write_token(at, s.out + (i - b.first) * s.dp, start + i, false, C(1),
                                    out + (start + i) * token_stride + head * d);
                }
                for (int64_t i = n; i < widths[row]; ++i)
                    std::fill_n(out + (start + i) * token_stride + head * d, d, T{});
            }
        }
    }
}

// From the scores of one query and the gradients of its probabilities to probabilities and the scores' gradients.
template <class C> void softmax_backward(C* p, C* dp, C log_sum, C delta, const Block& b, int64_t first, int64_t stop) {
    for (int64_t j = b.low; j < b.high; j += kLanes) {
        const lane_mask seen = lanes_between(first - j, stop - j);
        const lanes_t<C> probability = where(seen, exp_of_negative(load(p + j) - log_sum), 0);
        store(p + j, probability);
        store(dp + j, where(seen, probability * (load(dp + j) - delta), 0));
    }
}

template <class T>
void attention_backward(int64_t rows, const int64_t* starts, const int64_t* lengths, const int64_t* widths,
                        int64_t heads, int64_t kv_heads, int64_t d, int64_t q_stride, int64_t k_stride,
                        int64_t v_stride, int64_t window, double scale, const T* q, const T* k, const T* v,
                        const T* cosine, const T* sine, const T* out, const compute_t<T>* log_sums, const T* dout,
                        T* dq, T* dk, T* dv) {
    using C = compute_t<T>;
    const Heads<T> at{heads, kv_heads, d, q_stride, k_stride, v_stride, window, C(scale), q, k, v, cosine, sine};
    const int64_t group = heads / kv_heads, token_stride = heads * d, kv_stride = kv_heads * d;
#pragma omp parallel
    {
        Scratch<C> s;
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < rows * kv_heads; ++task) {
            const int64_t row = task / kv_heads, kv = task % kv_heads, start = starts[row], n = lengths[row];
            read_keys(at, start, n, kv, s);
            transpose(s.v, s.line, s.dp, s.v_t);
            std::fill_n(s.dk, s.line * s.dp, C(0)), std::fill_n(s.dv, s.line * s.dp, C(0));
            for (int64_t head = kv * group; head < (kv + 1) * group; ++head) {
                for (int64_t first = 0; first < n; first += kQueries) {
                    const Block b = query_block(first, n, window);
                    const int64_t keys = b.high - b.low;
                    block_scores(at, b, start, head, s);
                    read_block(at, b, dout + head * d, token_stride, start, false, C(1), s.out, s.dp);
                    product(b.padded, keys, d, s.out, s.dp, 1, s.panels(s.v_t, b), s.dscores + b.low, s.line, false);
                    for (int64_t i = b.first; i < b.stop; ++i) {
                        const T* own = out + (start + i) * token_stride + head * d;
                        const C* grad = s.out + (i - b.first) * s.dp;
                        lanes_t<C> delta = {};
                        for (int64_t e = 0; e < d; e += kLanes) delta += load(grad + e, d - e) * load(own + e, d - e);
                        softmax_backward(s.scores + (i - b.first) * s.line, s.dscores + (i - b.first) * s.line,
                                         log_sums[(start + i) * heads + head], sum_of<C>(delta), b,
                                         first_key(i, window), i + 1);
                    }
                    for (int64_t i = b.stop - b.first; i < b.padded; ++i)
                        for (C* part : {s.scores, s.dscores})
                            std::fill(part + i * s.line + b.low, part + i * s.line + b.high, C(0));
                    product(b.padded, s.dp, keys, s.dscores + b.low, s.line, 1, s.rows(s.k + b.low * s.dp), s.dq, s.dp,
                            false);
                    for (int64_t i = b.first; i < b.stop; ++i)
                        write_token(at, s.dq + (i - b.first) * s.dp, start + i, true, at.scale,
                                    dq + (start + i) * token_stride + head * d);
                    product(keys, s.dp, b.padded, s.dscores + b.low, 1, s.line, s.rows(s.q), s.dk + b.low * s.dp, s.dp,
                            true);
                    product(keys, s.dp, b.padded, s.scores + b.low, 1, s.line, s.rows(s.out), s.dv + b.low * s.dp,
                            s.dp, true);
                }
                for (int64_t i = n; i < widths[row]; ++i)
                    std::fill_n(dq + (start + i) * token_stride + head * d, d, T{});
            }
            for (int64_t j = 0; j < n; ++j) {
                write_token(at, s.dk + j * s.dp, start + j, true, C(1), dk + (start + j) * kv_stride + kv * d);
                write_token(at, s.dv + j * s.dp, start + j, false, C(1), dv + (start + j) * kv_stride + kv * d);
            }
            for (int64_t j = n; j < widths[row]; ++j)
                for (T* to : {dk, dv}) std::fill_n(to + (start + j) * kv_stride + kv * d, d, T{});
        }
    }
}

}  // namespace

// Each kernel's address for each storage type, under its name. ctypes reads the address and calls it.
#define LORASCOPE_EXPORT(kernel)                                        \
    extern "C" {                                                        \
    auto kernel##_bfloat16 = &kernel<bfloat16>;                         \
    auto kernel##_float32 = &kernel<float>;                             \
    auto kernel##_float64 = &kernel<double>;                            \
    }

LORASCOPE_EXPORT(rms_norm_forward)
LORASCOPE_EXPORT(rms_norm_backward)
LORASCOPE_EXPORT(silu_mul_forward)
LORASCOPE_EXPORT(silu_mul_backward)
LORASCOPE_EXPORT(cross_entropy)
LORASCOPE_EXPORT(dropout)
LORASCOPE_EXPORT(add_dropped)
LORASCOPE_EXPORT(attention_forward)
LORASCOPE_EXPORT(attention_backward)
