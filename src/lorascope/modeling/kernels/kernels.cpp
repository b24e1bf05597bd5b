// Element-wise and attention kernels of a training step, each one pass over its operands, where Torch's operations
// would make several. Plain C interface, no Torch headers: it compiles in seconds, and ctypes can call it.
//
// Storage is float, double or bfloat16. Arithmetic is double for double and float for the others; a result is rounded
// once, when it is stored. Reductions run in an order that depends on shapes alone, never on the number of threads.
// Vectors are GCC's vector extension, which Clang has too: 16 lanes, whatever the processor makes of them.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>
#ifdef __AVX512F__
#include <immintrin.h>
#endif
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
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

// A vector anywhere in memory, whatever type the memory has. (GCC copies a whole vector in two halves for memcpy.)
template <class V> struct anywhere { typedef V type __attribute__((aligned(1), may_alias)); };
template <class V> V read(const void* from) { return *(const typename anywhere<V>::type*)from; }
template <class V> void write(void* to, V x) { *(typename anywhere<V>::type*)to = x; }

inline words widened(halves x) {
#ifdef __AVX512F__
    return (words)_mm512_cvtepu16_epi32((__m256i)x);  // GCC makes two instructions of the line below
#else
    return __builtin_convertvector(x, words);
#endif
}

inline halves rounded(floats x) {
#ifdef __AVX512BF16__
    return (halves)_mm512_cvtneps_pbh((__m512)x);
#else
    const words bits = (words)x, nearest = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;  // ties to even
    return __builtin_convertvector(x == x ? nearest : words{} + 0x7fc0u, halves);  // else a NaN could become a number
#endif
}

inline floats load(const bfloat16* from) { return (floats)(widened(read<halves>(from)) << 16); }
template <class C> lanes_t<C> load(const C* from) { return read<lanes_t<C>>(from); }

inline void store(bfloat16* to, floats x) { write(to, rounded(x)); }
template <class C> void store(C* to, lanes_t<C> x) { write(to, x); }

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

// One bit a lane, and back.
inline uint16_t packed(lane_mask chosen) {
#ifdef __AVX512F__
    return _mm512_cmplt_epi32_mask((__m512i)chosen, _mm512_setzero_si512());
#else
    uint16_t bits = 0;
    for (int64_t l = 0; l < kLanes; ++l) bits |= uint16_t((chosen[l] & 1) << l);
    return bits;
#endif
}
inline lane_mask unpacked(uint16_t bits) {
    const words lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return -(lane_mask)((uint32_t(bits) >> lane) & 1u);
}

// exp of numbers up to 0: 2^n from the exponent bits, the rest from a polynomial (Cephes' expf coefficients); relative
// error below 2e-7, and 0 below -87. A NaN stays a NaN.
inline floats exp_of_negative(floats x) {
    constexpr float kShift = 12582912.0f + 127.0f;  // n and the exponent's bias then stand in the lowest bits
    const floats shifted = x * 1.44269504f + kShift, whole = shifted - kShift;
    const floats r = x - whole * 0.693359375f - whole * -2.12194440e-4f;
    floats p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return x < -87.0f ? floats{} : p * (floats)((words)shifted << 23);
}
inline doubles exp_of_negative(doubles x) {
    for (int64_t l = 0; l < kLanes; ++l) x[l] = std::exp(x[l]);
    return x;
}

template <class V> V sigmoid(V x) {
    const V e = exp_of_negative(x < 0 ? x : -x), positive = 1 / (1 + e);
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
// words give, low half first, the 16 bits of elements l, 16 + l, ..., 112 + l. modeling/dropout.py has the same in Torch.

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

// Calls use(block, row, elements before the block in its row) for every block of every row.
template <class Use>
void for_each_block(int64_t rows, int64_t d, const int64_t* widths, Use use) {
    std::vector<int64_t> first_block(rows + 1, 0);
    for (int64_t row = 0; row < rows; ++row)
        first_block[row + 1] = first_block[row] + (widths[row] * d + kBlock - 1) / kBlock;
#pragma omp parallel
    {
        int64_t row = 0;
#pragma omp for schedule(static)
        for (int64_t block = 0; block < first_block[rows]; ++block) {
            while (block >= first_block[row + 1]) ++row;
            use(block, row, (block - first_block[row]) * kBlock);
        }
    }
}

// One bit an element, 1 where it is kept: eight words a block, word p for its elements 16 p to 16 p + 15.
void kept_bits(int64_t rows, int64_t d, const int64_t* lengths, const int64_t* widths, const uint32_t* keys,
               int64_t draw, int64_t drop_below, uint16_t* kept) {
    const uint32_t below = uint32_t(drop_below);
    for_each_block(rows, d, widths, [=](int64_t block, int64_t row, int64_t within) {
        words bits[4];
        threefry(keys + 4 * row, uint32_t(within / kBlock * kLanes), uint32_t(draw), bits);
        const int64_t real = lengths[row] * d - within;  // what lies behind a row's tokens is kept
        for (int64_t part = 0; part < kBlock / kLanes; ++part) {
            const words number = part % 2 == 0 ? bits[part / 2] & 0xffffu : bits[part / 2] >> 16;
            kept[block * (kBlock / kLanes) + part] =
                packed((lane_mask)(number >= below) | lanes_between(real - part * kLanes, kLanes));
        }
    });
}

// Calls use(first element, elements, kept) for up to 16 elements at a time of every row.
template <class Use>
void for_each_lanes(int64_t rows, int64_t d, const int64_t* starts, const int64_t* widths, const uint16_t* kept,
                    Use use) {
    for_each_block(rows, d, widths, [=](int64_t block, int64_t row, int64_t within) {
        const int64_t left = widths[row] * d - within, first = starts[row] * d + within;
        const uint16_t* own = kept + block * (kBlock / kLanes);
        if (left >= kBlock) {
            for (int64_t part = 0; part < kBlock / kLanes; ++part)
                use(first + part * kLanes, kLanes, unpacked(own[part]));
        } else {
            for (int64_t part = 0, at = 0; at < left; ++part, at += kLanes) use(first + at, left - at, unpacked(own[part]));
        }
    });
}

// out = x where kept, else 0; the caller scales
template <class T>
void dropout(int64_t rows, int64_t d, const int64_t* starts, const int64_t* widths, const uint16_t* kept, const T* x,
             T* out) {
    for_each_lanes(rows, d, starts, widths, kept, [=](int64_t at, int64_t count, lane_mask chosen) {
        store(out + at, where(chosen, load(x + at, count), 0), count);
    });
}

// out += x where kept
template <class T>
void add_dropped(int64_t rows, int64_t d, const int64_t* starts, const int64_t* widths, const uint16_t* kept, const T* x,
                 T* out) {
    for_each_lanes(rows, d, starts, widths, kept, [=](int64_t at, int64_t count, lane_mask chosen) {
        store(out + at, load(out + at, count) + where(chosen, load(x + at, count), 0), count);
    });
}

// ---------------------------------------------------------------------------------------------------------------------
// Causal attention inside each row of a packed pass. A row may have a parent, which holds the tokens before its own. A
// task is one row without a parent, its children, and one key-value head; the scores of a block of queries exist at
// once, so memory grows with the length, not with its square. The backward pass makes the probabilities anew from the
// forward pass's log-sum-exp (Dao et al. 2022, arXiv 2205.14135, section 3.1).

constexpr int64_t kQueries = 32, kTile = 32;

inline int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// A block of queries, [first, stop) of a row that has `before` tokens before its own; they may look at keys [low, high).
struct Block {
    int64_t first, stop, before, low, high;
};

// Memory that begins on a cache line: a tile whose rows straddle lines takes three times as long to load.
template <class C> struct Aligned {
    C* data = nullptr;
    size_t size = 0;

    C* fit(size_t needed) {
        if (size < needed) {
            std::free(data);
            size = needed;
            data = (C*)std::aligned_alloc(64, round_up(int64_t(needed * sizeof(C)), 64));
        }
        return data;
    }
    Aligned() = default;
    Aligned(const Aligned&) = delete;
    Aligned& operator=(const Aligned&) = delete;
    ~Aligned() { std::free(data); }
};

// What one thread works on: keys, values and their gradients [line, dp], queries, gradients of the output, the output
// and gradients of queries [32, dp], and scores [32, line]. Lines and widths are whole tiles; keys behind a row's end
// and queries behind a block's are zero.
template <class C> struct Buffers {
    Aligned<C> memory;
    int64_t line = 0, dp = 0;
    C *k, *v, *dk, *dv, *q, *grad, *out, *dq, *scores, *dscores;

    // Makes room, and returns `more` numbers beside what is named above.
    C* fit(int64_t length, int64_t d, size_t more_keys, size_t more_queries, size_t more_scores) {
        line = round_up(length, kTile), dp = round_up(d, kTile);
        const size_t keys = line * dp, queries = kQueries * dp, square = kQueries * line;
        const size_t needed = (4 + more_keys) * keys + (4 + more_queries) * queries + (2 + more_scores) * square;
        C* at = memory.fit(needed);
        for (C** part : {&k, &v, &dk, &dv}) *part = at, at += keys;
        for (C** part : {&q, &grad, &out, &dq}) *part = at, at += queries;
        for (C** part : {&scores, &dscores}) *part = at, at += square;
        if (d < dp) {  // the features behind a token's own are never written
            for (C* part : {k, v}) std::fill_n(part, keys, C(0));
            for (C* part : {q, grad}) std::fill_n(part, queries, C(0));
        }
        return at;
    }
};

// C[8, 32] (+)= A[8, k] B[k, 32]; element (i, p) of A lies at a[i * a_row + p * a_col]. The sums stay in registers.
template <class C>
void product_tile(int64_t k, const C* a, int64_t a_row, int64_t a_col, const C* b, int64_t ldb, C* c, int64_t ldc,
                  bool add) {
    lanes_t<C> sums[8][2] = {};
    for (int64_t p = 0; p < k; ++p) {
        const lanes_t<C> left = load(b + p * ldb), right = load(b + p * ldb + kLanes);
        for (int64_t r = 0; r < 8; ++r) {
            sums[r][0] += a[r * a_row + p * a_col] * left;
            sums[r][1] += a[r * a_row + p * a_col] * right;
        }
    }
    for (int64_t r = 0; r < 8; ++r)
        for (int64_t t = 0; t < 2; ++t) {
            C* to = c + r * ldc + t * kLanes;
            store(to, add ? load(to) + sums[r][t] : sums[r][t]);
        }
}

// The six products of attention in the numbers' own precision.
template <class C> struct Plain : Buffers<C> {
    C *k_t, *v_t;  // transposes in panels of 32 keys [line / 32, dp, 32], so that a tile reads one stretch of memory

    void fit(int64_t length, int64_t d) {
        k_t = Buffers<C>::fit(length, d, 2, 0, 0), v_t = k_t + this->line * this->dp;
    }
    // C[m, n] (+)= A B, m a multiple of 8 and n of 32; B has its panels of 32 columns `panel` apart.
    static void product(int64_t m, int64_t n, int64_t k, const C* a, int64_t a_row, int64_t a_col, const C* b,
                        int64_t ldb, int64_t panel, C* c, int64_t ldc, bool add) {
        for (int64_t j = 0; j < n; j += kTile)
            for (int64_t i = 0; i < m; i += 8)
                product_tile(k, a + i * a_row, a_row, a_col, b + j / kTile * panel, ldb, c + i * ldc + j, ldc, add);
    }
    void keys_ready(int64_t first, int64_t stop, bool backward) {
        const int64_t dp = this->dp;
        for (int64_t j = first; j < stop; ++j)
            for (int64_t e = 0; e < dp; ++e) {
                const int64_t to = (j / kTile * dp + e) * kTile + j % kTile;
                k_t[to] = this->k[j * dp + e];
                if (backward) v_t[to] = this->v[j * dp + e];
            }
    }
    void queries_ready(bool) {}
    // Where the probabilities of one query go, 16 at a time. (By value: a vector may be written over anything, so that
    // the compiler would read the pointers of this object anew for each.)
    struct Sink {
        C* p;
        void put(int64_t j, lanes_t<C> x) const { store(p + j, x); }
    };
    // The same and the scores' gradients, of two queries.
    struct PairSink {
        C *p, *next_p, *ds, *next_ds;
        void put(int64_t j, lanes_t<C> a, lanes_t<C> next_a, lanes_t<C> x, lanes_t<C> next_x) const {
            store(p + j, a), store(next_p + j, next_a), store(ds + j, x), store(next_ds + j, next_x);
        }
    };
    Sink sink(int64_t i) const { return {this->scores + i * this->line}; }
    PairSink pair_sink(int64_t i) const {
        C *p = this->scores + i * this->line, *ds = this->dscores + i * this->line;
        return {p, p + this->line, ds, ds + this->line};
    }
    void key_gradients_ready(int64_t, int64_t) {}
    void clear_key_gradients(int64_t first, int64_t stop) {
        for (C* part : {this->dk, this->dv}) std::fill(part + first * this->dp, part + stop * this->dp, C(0));
    }
    void make_scores(const Block& b) {
        product(kQueries, b.high - b.low, this->dp, this->q, this->dp, 1, k_t + b.low * this->dp, kTile,
                this->dp * kTile, this->scores + b.low, this->line, false);
    }
    void make_dscores(const Block& b) {
        product(kQueries, b.high - b.low, this->dp, this->grad, this->dp, 1, v_t + b.low * this->dp, kTile,
                this->dp * kTile, this->dscores + b.low, this->line, false);
    }
    void make_out(const Block& b) {
        product(kQueries, this->dp, b.high - b.low, this->scores + b.low, this->line, 1, this->v + b.low * this->dp,
                this->dp, kTile, this->out, this->dp, false);
    }
    void make_gradients(const Block& b) {
        const int64_t keys = b.high - b.low, dp = this->dp, line = this->line;
        const C *p = this->scores + b.low, *ds = this->dscores + b.low;
        product(kQueries, dp, keys, ds, line, 1, this->k + b.low * dp, dp, kTile, this->dq, dp, false);
        product(keys, dp, kQueries, ds, 1, line, this->q, dp, kTile, this->dk + b.low * dp, dp, true);
        product(keys, dp, kQueries, p, 1, line, this->grad, dp, kTile, this->dv + b.low * dp, dp, true);
    }
};

#if defined(__AVX512BF16__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#define LORASCOPE_PAIRS

// One stage of a 16 x 16 transpose: swaps blocks of kStep x kStep numbers across the diagonal.
template <int kStep> inline __attribute__((always_inline)) void transpose_stage(words row[kLanes]) {
    words from_left = {}, from_right = {};
    for (int l = 0; l < kLanes; ++l) {
        from_left[l] = (l & kStep) == 0 ? l : kLanes + l - kStep;
        from_right[l] = (l & kStep) == 0 ? l + kStep : kLanes + l;
    }
    for (int r = 0; r < kLanes; ++r) {
        if (r & kStep) continue;
        const words left = row[r], right = row[r + kStep];
        row[r] = __builtin_shuffle(left, right, from_left);
        row[r + kStep] = __builtin_shuffle(left, right, from_right);
    }
}

// to[c, r] = from[r, c] for whole 16 x 16 blocks of 4-byte numbers.
template <class N> void transpose(const N* from, int64_t rows, int64_t columns, int64_t ld_from, N* to, int64_t ld_to) {
    for (int64_t r = 0; r < rows; r += kLanes)
        for (int64_t c = 0; c < columns; c += kLanes) {
            words block[kLanes];
            for (int64_t i = 0; i < kLanes; ++i) block[i] = read<words>(from + (r + i) * ld_from + c);
            transpose_stage<8>(block), transpose_stage<4>(block), transpose_stage<2>(block), transpose_stage<1>(block);
            for (int64_t i = 0; i < kLanes; ++i) write(to + (c + i) * ld_to + r, block[i]);
        }
}

#endif

#if defined(__AMX_BF16__) && defined(LORASCOPE_PAIRS)
#define LORASCOPE_TILES

// 16 pairs of bfloat16, each in one word: the first in its low half.
inline words paired(floats first, floats second) { return widened(rounded(first)) | widened(rounded(second)) << 16; }

// GCC does not know what tile instructions read from memory and write to it: nothing may move across this.
inline void memory_fence() { asm volatile("" ::: "memory"); }

// Sets the tile unit up for 16 rows of 64 bytes, for as long as it lives.
class TileSetup {
    struct alignas(64) Config {
        uint8_t palette, start_row, reserved[14];
        uint16_t column_bytes[16];
        uint8_t rows[16];
    };
    static constexpr Config kOwn = {
        1, 0, {}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};
    Config before = {};

  public:
    TileSetup() {
        memory_fence();
        _tile_storeconfig(&before);  // the matrix library may count on what it set
        memory_fence();
        _tile_loadconfig(&kOwn);
    }
    ~TileSetup() {
        memory_fence();
        if (before.palette != 0) _tile_loadconfig(&before);
        else _tile_release();
    }
};

// The six products on the tile unit: bfloat16 in, float32 sums (Intel's AMX, which multiplies 16 x 32 by 32 x 16 at
// once). Its right-hand operand has two rows in one: word (p, j) holds B[2p, j] and B[2p + 1, j].
struct Tiles : TileSetup, Buffers<float> {
    uint32_t *k_rows, *v_rows;    // [line, dp / 2] pairs of neighbouring features
    uint32_t *k_t, *v_t;          // [dp / 2, line], their transposes
    uint32_t *k_pairs, *v_pairs;  // [line / 2, dp] pairs of neighbouring keys
    uint32_t *q_rows, *grad_rows, *q_t, *grad_t;  // [32, dp / 2] and [dp, 16]
    uint32_t *p_rows, *ds_rows, *p_pairs, *ds_pairs;  // [32, line / 2] and [16, line]
    float *dk_t, *dv_t;           // [dp, line]

    void fit(int64_t length, int64_t d) {
        float* at = Buffers<float>::fit(length, d, 5, 2, 2);
        const size_t keys = line * dp, queries = kQueries * dp, square = kQueries * line;
        for (float** part : {&dk_t, &dv_t}) *part = at, at += keys;
        for (uint32_t** part : {&k_rows, &v_rows, &k_t, &v_t, &k_pairs, &v_pairs}) *part = (uint32_t*)at, at += keys / 2;
        for (uint32_t** part : {&q_rows, &grad_rows, &q_t, &grad_t}) *part = (uint32_t*)at, at += queries / 2;
        for (uint32_t** part : {&p_rows, &ds_rows, &p_pairs, &ds_pairs}) *part = (uint32_t*)at, at += square / 2;
    }
    // C[m, n] (+)= A[m, k] B[k, n] with m, n and k multiples of 32; lda and ldb in words.
    static void product(int64_t m, int64_t n, int64_t k, const uint32_t* a, int64_t lda, const uint32_t* b, int64_t ldb,
                        float* c, int64_t ldc, bool add) {
        memory_fence();
        for (int64_t i = 0; i < m; i += 32)
            for (int64_t j = 0; j < n; j += 32) {
                float* to = c + i * ldc + j;
                if (add) {
                    _tile_loadd(0, to, ldc * 4);
                    _tile_loadd(1, to + 16, ldc * 4);
                    _tile_loadd(2, to + 16 * ldc, ldc * 4);
                    _tile_loadd(3, to + 16 * ldc + 16, ldc * 4);
                } else {
                    _tile_zero(0);
                    _tile_zero(1);
                    _tile_zero(2);
                    _tile_zero(3);
                }
                for (int64_t p = 0; p < k / 2; p += 16) {
                    _tile_loadd(4, a + i * lda + p, lda * 4);
                    _tile_loadd(5, a + (i + 16) * lda + p, lda * 4);
                    _tile_loadd(6, b + p * ldb + j, ldb * 4);
                    _tile_loadd(7, b + p * ldb + j + 16, ldb * 4);
                    _tile_dpbf16ps(0, 4, 6);
                    _tile_dpbf16ps(1, 4, 7);
                    _tile_dpbf16ps(2, 5, 6);
                    _tile_dpbf16ps(3, 5, 7);
                }
                _tile_stored(0, to, ldc * 4);
                _tile_stored(1, to + 16, ldc * 4);
                _tile_stored(2, to + 16 * ldc, ldc * 4);
                _tile_stored(3, to + 16 * ldc + 16, ldc * 4);
            }
        memory_fence();
    }
    // Pairs of neighbouring numbers of each row.
    static void to_rows(const float* from, int64_t rows, int64_t columns, int64_t ld, uint32_t* to, int64_t ld_to) {
        for (int64_t r = 0; r < rows; ++r)
            for (int64_t c = 0; c < columns; c += kLanes)
                store((bfloat16*)(to + r * ld_to) + c, load(from + r * ld + c));
    }
    // Pairs of neighbouring rows.
    static void to_pairs(const float* from, int64_t rows, int64_t columns, int64_t ld, uint32_t* to, int64_t ld_to) {
        for (int64_t r = 0; r < rows; r += 2)
            for (int64_t c = 0; c < columns; c += kLanes) {
                const float* at = from + r * ld + c;
                write(to + r / 2 * ld_to + c, paired(load(at), load(at + ld)));
            }
    }
    void keys_ready(int64_t first, int64_t stop, bool backward) {
        first = first / kTile * kTile, stop = round_up(stop, kTile);
        const int64_t n = stop - first, half = dp / 2;
        to_rows(k + first * dp, n, dp, dp, k_rows + first * half, half);
        transpose(k_rows + first * half, n, half, half, k_t + first, line);
        to_pairs(v + first * dp, n, dp, dp, v_pairs + first / 2 * dp, dp);
        if (!backward) return;
        to_rows(v + first * dp, n, dp, dp, v_rows + first * half, half);
        transpose(v_rows + first * half, n, half, half, v_t + first, line);
        to_pairs(k + first * dp, n, dp, dp, k_pairs + first / 2 * dp, dp);
    }
    void queries_ready(bool backward) {
        to_rows(q, kQueries, dp, dp, q_rows, dp / 2);
        if (!backward) return;
        to_rows(grad, kQueries, dp, dp, grad_rows, dp / 2);
        uint32_t* pairs = p_pairs;  // free until the probabilities are there, and large enough: a line is 32 or more
        for (const auto& [from, to] : {std::pair{q, q_t}, std::pair{grad, grad_t}}) {
            for (int64_t c = 0; c < dp; c += kTile) {
                to_pairs(from + c, kQueries, kTile, dp, pairs, kTile);
                transpose(pairs, kQueries / 2, kTile, kTile, to + c * kQueries / 2, kQueries / 2);
            }
        }
    }
    struct Sink {
        bfloat16* p;
        void put(int64_t j, floats x) const { store(p + j, x); }
    };
    struct PairSink {
        uint32_t *p, *ds;
        bfloat16 *row, *next_row;
        void put(int64_t j, floats a, floats next_a, floats x, floats next_x) const {
            write(p + j, paired(a, next_a)), write(ds + j, paired(x, next_x));
            store(row + j, x), store(next_row + j, next_x);
        }
    };
    Sink sink(int64_t i) const { return {(bfloat16*)(p_rows + i * line / 2)}; }
    PairSink pair_sink(int64_t i) const {
        bfloat16* row = (bfloat16*)(ds_rows + i * line / 2);
        return {p_pairs + i / 2 * line, ds_pairs + i / 2 * line, row, row + line};
    }
    void key_gradients_ready(int64_t first, int64_t stop) {
        first = first / kTile * kTile, stop = round_up(stop, kTile);
        transpose(dk_t + first, dp, stop - first, line, dk + first * dp, dp);
        transpose(dv_t + first, dp, stop - first, line, dv + first * dp, dp);
    }
    void clear_key_gradients(int64_t first, int64_t stop) {
        for (float* part : {dk_t, dv_t})
            for (int64_t e = 0; e < dp; ++e) std::fill(part + e * line + first, part + e * line + stop, 0.0f);
    }
    void make_scores(const Block& b) {
        product(kQueries, b.high - b.low, dp, q_rows, dp / 2, k_t + b.low, line, scores + b.low, line, false);
    }
    void make_dscores(const Block& b) {
        product(kQueries, b.high - b.low, dp, grad_rows, dp / 2, v_t + b.low, line, dscores + b.low, line, false);
    }
    void make_out(const Block& b) {
        product(kQueries, dp, b.high - b.low, p_rows + b.low / 2, line / 2, v_pairs + b.low / 2 * dp, dp, out, dp,
                false);
    }
    void make_gradients(const Block& b) {
        const int64_t keys = b.high - b.low;
        product(kQueries, dp, keys, ds_rows + b.low / 2, line / 2, k_pairs + b.low / 2 * dp, dp, dq, dp, false);
        product(dp, keys, kQueries, q_t, kQueries / 2, ds_pairs + b.low, line, dk_t + b.low, line, true);
        product(dp, keys, kQueries, grad_t, kQueries / 2, p_pairs + b.low, line, dv_t + b.low, line, true);
    }
};

// Linux wants to be asked before a process uses the tile unit.
inline bool may_use_tiles() {
    constexpr long kRequest = 0x1023, kTileData = 18;
    static const bool granted = syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
    return granted;
}
#endif

// What all tasks of one attention call share; kernels/calls.py has the same fields in the same order. Token t of head h
// begins at pointer + t * stride + h * d.
template <class T> struct Heads {
    int64_t rows;
    const int64_t *starts, *lengths, *widths, *parents;
    int64_t heads, kv_heads, d, q_stride, k_stride, v_stride, window;
    double scale;
    const T *q, *k, *v, *cosine, *sine;  // cosine and sine [tokens, d], or null without rotary positions

    int64_t first_key(int64_t query) const { return window > 0 && query - window + 1 > 0 ? query - window + 1 : 0; }

    Block block(int64_t first, int64_t length, int64_t before) const {
        const int64_t stop = std::min(first + kQueries, length);
        return {first, stop, before, first_key(before + first) / kTile * kTile, round_up(before + stop, kTile)};
    }
    // The longest line of keys of a task: a row, or its longest child behind it.
    int64_t longest(int64_t root) const {
        int64_t most = 0;
        for (int64_t row = root + 1; row < rows; ++row)
            if (parents[row] == root) most = std::max(most, lengths[row]);
        return lengths[root] + most;
    }
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

// Asks for one head of a token to be read soon: heads of neighbouring tokens lie too far apart for the processor to guess.
template <class T> void expect(const T* head, int64_t d) {
    for (int64_t j = 0; j < d; j += 64 / int64_t(sizeof(T))) __builtin_prefetch(head + j);
}
constexpr int64_t kAhead = 6;

// Reads a row's keys and values behind those of its parent.
template <class T, class Products>
void read_keys(const Heads<T>& at, int64_t row, int64_t before, int64_t kv, bool backward, Products& to) {
    using C = compute_t<T>;
    const int64_t stop = before + at.lengths[row], end = round_up(stop, kTile);
    for (int64_t j = before; j < stop; ++j) {
        const int64_t token = at.starts[row] + j - before;
        expect(at.k + (token + kAhead) * at.k_stride + kv * at.d, at.d);
        expect(at.v + (token + kAhead) * at.v_stride + kv * at.d, at.d);
        read_token(at, at.k + token * at.k_stride + kv * at.d, token, true, C(1), to.k + j * to.dp);
        read_token(at, at.v + token * at.v_stride + kv * at.d, token, false, C(1), to.v + j * to.dp);
    }
    for (C* part : {to.k, to.v}) std::fill(part + stop * to.dp, part + end * to.dp, C(0));
    to.keys_ready(before, end, backward);
}

// Reads the tokens of a block, of q or of the output's gradient, and fills up with zeros.
template <class T>
void read_block(const Heads<T>& at, const Block& b, const T* from, int64_t stride, int64_t start, bool turn,
                compute_t<T> factor, compute_t<T>* to, int64_t dp) {
    for (int64_t i = b.first; i < b.stop; ++i) {
        expect(from + (start + i + kAhead) * stride, at.d);
        read_token(at, from + (start + i) * stride, start + i, turn, factor, to + (i - b.first) * dp);
    }
    std::fill(to + (b.stop - b.first) * dp, to + kQueries * dp, compute_t<T>(0));
}

// Puts the probabilities of query i of a block, not yet divided by their sum, zero outside of the keys [first, stop) that
// it may see; returns their sum and the log of the sum of the scores' exponentials.
template <class C, class Products>
std::pair<C, C> softmax(Products& x, const Block& b, int64_t i, int64_t first, int64_t stop) {
    using V = lanes_t<C>;
    const C* row = x.scores + i * x.line;
    const auto sink = x.sink(i);
    const int64_t low = b.low, high = b.high;
    C largest = -std::numeric_limits<C>::infinity();
    V most = V{} + largest, sums = {};
    for (int64_t j = low; j < high; j += kLanes) {
        const V score = where(lanes_between(first - j, stop - j), load(row + j), largest);
        most = score > most ? score : most;
    }
    for (int64_t l = 0; l < kLanes; ++l) largest = std::max<C>(largest, most[l]);
    for (int64_t j = low; j < high; j += kLanes) {
        const V e = where(lanes_between(first - j, stop - j), exp_of_negative(load(row + j) - largest), 0);
        sink.put(j, e);
        sums += e;
    }
    const C sum = sum_of<C>(sums);
    return {sum, largest + std::log(sum)};
}

// What the backward pass knows of one query; nothing is seen where stop is 0.
template <class C> struct Query {
    C log_sum = 0, delta = 0;
    int64_t first = 0, stop = 0;

    // From 16 scores and gradients of probabilities to probabilities and gradients of scores.
    void differentiate(int64_t j, lanes_t<C>& p, lanes_t<C>& ds) const {
        const lane_mask seen = lanes_between(first - j, stop - j);
        p = where(seen, exp_of_negative(p - log_sum), 0);
        ds = where(seen, p * (ds - delta), 0);
    }
};

template <class C, class Products>
void softmax_backward(const Products& x, const Block& b, int64_t i, const Query<C> query, const Query<C> next) {
    const int64_t line = x.line, low = b.low, high = b.high;
    const C *scores = x.scores + i * line, *dscores = x.dscores + i * line;
    const auto sink = x.pair_sink(i);
    for (int64_t j = low; j < high; j += kLanes) {
        lanes_t<C> p = load(scores + j), ds = load(dscores + j);
        lanes_t<C> next_p = load(scores + line + j), next_ds = load(dscores + line + j);
        query.differentiate(j, p, ds);
        next.differentiate(j, next_p, next_ds);
        sink.put(j, p, next_p, ds, next_ds);
    }
}

// Calls use(row, tokens before it) for a row without a parent and then for its children.
template <class T, class Use> void for_each_member(const Heads<T>& at, int64_t root, Use use) {
    use(root, int64_t(0));
    for (int64_t row = root + 1; row < at.rows; ++row)
        if (at.parents[row] == root) use(row, at.lengths[root]);
}

template <class T, class Products>
void forward_row(const Heads<T>& at, int64_t row, int64_t before, int64_t kv, Products& x, T* out,
                 compute_t<T>* log_sums) {
    using C = compute_t<T>;
    const int64_t start = at.starts[row], n = at.lengths[row], group = at.heads / at.kv_heads;
    const int64_t token_stride = at.heads * at.d;
    read_keys(at, row, before, kv, false, x);
    for (int64_t head = kv * group; head < (kv + 1) * group; ++head) {
        for (int64_t first = 0; first < n; first += kQueries) {
            const Block b = at.block(first, n, before);
            read_block(at, b, at.q + head * at.d, at.q_stride, start, true, at.scale, x.q, x.dp);
            x.queries_ready(false);
            x.make_scores(b);
            C sums[kQueries];
            for (int64_t i = b.first; i < b.stop; ++i)
                std::tie(sums[i - b.first], log_sums[(start + i) * at.heads + head]) =
                    softmax<C>(x, b, i - b.first, at.first_key(before + i), before + i + 1);
            x.make_out(b);
            for (int64_t i = b.first; i < b.stop; ++i)
                write_token(at, x.out + (i - b.first) * x.dp, start + i, false, C(1) / sums[i - b.first],
                            out + (start + i) * token_stride + head * at.d);
        }
        for (int64_t i = n; i < at.widths[row]; ++i)
            std::fill_n(out + (start + i) * token_stride + head * at.d, at.d, T{});
    }
}

template <class T> struct Gradients {
    const T *out, *dout;
    const compute_t<T>* log_sums;
    T *dq, *dk, *dv;
};

template <class T, class Products>
void write_key_gradients(const Heads<T>& at, int64_t row, int64_t before, int64_t kv, Products& x,
                         const Gradients<T>& to) {
    using C = compute_t<T>;
    const int64_t start = at.starts[row], n = at.lengths[row], stride = at.kv_heads * at.d;
    x.key_gradients_ready(before, before + n);
    for (int64_t j = 0; j < n; ++j) {
        const int64_t key = (before + j) * x.dp, place = (start + j) * stride + kv * at.d;
        write_token(at, x.dk + key, start + j, true, C(1), to.dk + place);
        write_token(at, x.dv + key, start + j, false, C(1), to.dv + place);
    }
    for (int64_t j = n; j < at.widths[row]; ++j)
        for (T* part : {to.dk, to.dv}) std::fill_n(part + (start + j) * stride + kv * at.d, at.d, T{});
}

template <class T, class Products>
void backward_row(const Heads<T>& at, int64_t row, int64_t before, int64_t kv, Products& x, const Gradients<T>& to) {
    using C = compute_t<T>;
    const int64_t start = at.starts[row], n = at.lengths[row], d = at.d, group = at.heads / at.kv_heads;
    const int64_t token_stride = at.heads * d;
    read_keys(at, row, before, kv, true, x);
    x.clear_key_gradients(before, round_up(before + n, kTile));
    for (int64_t head = kv * group; head < (kv + 1) * group; ++head) {
        for (int64_t first = 0; first < n; first += kQueries) {
            const Block b = at.block(first, n, before);
            read_block(at, b, at.q + head * d, at.q_stride, start, true, at.scale, x.q, x.dp);
            read_block(at, b, to.dout + head * d, token_stride, start, false, C(1), x.grad, x.dp);
            x.queries_ready(true);
            x.make_scores(b);
            x.make_dscores(b);
            Query<C> queries[kQueries] = {};
            for (int64_t i = b.first; i < b.stop; ++i) {
                const T* own = to.out + (start + i) * token_stride + head * d;
                expect(own + kAhead * token_stride, d);
                const C* grad = x.grad + (i - b.first) * x.dp;
                lanes_t<C> delta = {};
                for (int64_t e = 0; e < d; e += kLanes) delta += load(grad + e, d - e) * load(own + e, d - e);
                queries[i - b.first] = {to.log_sums[(start + i) * at.heads + head], sum_of<C>(delta),
                                        at.first_key(before + i), before + i + 1};
            }
            for (int64_t i = 0; i < kQueries; i += 2) softmax_backward(x, b, i, queries[i], queries[i + 1]);
            x.make_gradients(b);
            for (int64_t i = b.first; i < b.stop; ++i)
                write_token(at, x.dq + (i - b.first) * x.dp, start + i, true, at.scale,
                            to.dq + (start + i) * token_stride + head * d);
        }
        for (int64_t i = n; i < at.widths[row]; ++i)
            std::fill_n(to.dq + (start + i) * token_stride + head * d, d, T{});
    }
    if (before > 0) write_key_gradients(at, row, before, kv, x, to);
}

// Calls use(row without a parent, key-value head, products) for every task.
template <class Products, class T, class Use> void for_each_task(const Heads<T>& at, Use use) {
#pragma omp parallel
    {
        Products products;
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < at.rows * at.kv_heads; ++task) {
            const int64_t root = task / at.kv_heads;
            if (at.parents[root] >= 0) continue;
            products.fit(at.longest(root), at.d);
            use(root, task % at.kv_heads, products);
        }
    }
}

template <class Products, class T> void forward_with(const Heads<T>& at, T* out, compute_t<T>* log_sums) {
    for_each_task<Products>(at, [&](int64_t root, int64_t kv, Products& products) {
        for_each_member(at, root, [&](int64_t row, int64_t before) {
            forward_row(at, row, before, kv, products, out, log_sums);
        });
    });
}

template <class Products, class T> void backward_with(const Heads<T>& at, const Gradients<T>& to) {
    for_each_task<Products>(at, [&](int64_t root, int64_t kv, Products& products) {
        for_each_member(at, root, [&](int64_t row, int64_t before) {
            backward_row(at, row, before, kv, products, to);
        });
        write_key_gradients(at, root, 0, kv, products, to);
    });
}

template <class T> void attention_forward(const Heads<T>* at, T* out, compute_t<T>* log_sums) {
#ifdef LORASCOPE_TILES
    if constexpr (std::is_same_v<T, bfloat16>)
        if (may_use_tiles()) return forward_with<Tiles>(*at, out, log_sums);
#endif
    forward_with<Plain<compute_t<T>>>(*at, out, log_sums);
}

template <class T>
void attention_backward(const Heads<T>* at, const T* out, const compute_t<T>* log_sums, const T* dout, T* dq, T* dk,
                        T* dv) {
    const Gradients<T> to{out, dout, log_sums, dq, dk, dv};
#ifdef LORASCOPE_TILES
    if constexpr (std::is_same_v<T, bfloat16>)
        if (may_use_tiles()) return backward_with<Tiles>(*at, to);
#endif
    backward_with<Plain<compute_t<T>>>(*at, to);
}

// ---------------------------------------------------------------------------------------------------------------------
// What low-rank adapters add to one linear layer, and their gradients (Hu et al. 2021, arXiv 2106.09685, section 4.1):
// y += factor * dropped(x) A^T B^T for the slots of each adapter. bfloat16 is multiplied in pairs with float32 sums, on
// the tile unit where there is one, else by vectors; the operands of all products lie in memory as tiles.

#ifdef LORASCOPE_PAIRS

constexpr int64_t kTileWords = kLanes * kLanes, kPairs = 2 * kLanes;

// A factor of a product in tiles of 16 x 16 words, a word being two neighbours along the dimension that is summed. The
// left factor's tile has word (row, pair), the right one's (pair, column); tile (i, p) is the p-th along that dimension.
struct Tiled {
    uint32_t* data = nullptr;
    int64_t depth = 0;

    uint32_t* tile(int64_t i, int64_t p) const { return data + (i * depth + p) * kTileWords; }
};

// M x N result tiles [16, 16], `line` tiles from one row of them to the next.
template <int M, int N>
void sum_with_vectors(const Tiled& a, int64_t i, const Tiled& b, int64_t j, float* sums, int64_t line, bool add) {
    for (int m = 0; m < M; ++m)
        for (int n = 0; n < N; ++n) {
            float* to = sums + (m * line + n) * kTileWords;
            __m512 sum[kLanes] = {};
            for (int64_t r = 0; add && r < kLanes; ++r) sum[r] = (__m512)load(to + r * kLanes);
            const uint32_t *left = a.tile(i + m, 0), *right = b.tile(j + n, 0);
            for (int64_t p = 0; p < a.depth; ++p, left += kTileWords, right += kTileWords)
                for (int64_t pair = 0; pair < kLanes; ++pair) {
                    const __m512bh columns = (__m512bh)read<words>(right + pair * kLanes);
                    for (int64_t r = 0; r < kLanes; ++r)
                        sum[r] = _mm512_dpbf16_ps(sum[r], (__m512bh)_mm512_set1_epi32(left[r * kLanes + pair]), columns);
                }
            for (int64_t r = 0; r < kLanes; ++r) write(to + r * kLanes, (floats)sum[r]);
        }
}

#ifdef LORASCOPE_TILES
template <int M, int N>
void sum_with_tiles(const Tiled& a, int64_t i, const Tiled& b, int64_t j, float* sums, int64_t line, bool add) {
    const uint32_t *a0 = a.tile(i, 0), *a1 = a.tile(i + M - 1, 0), *b0 = b.tile(j, 0), *b1 = b.tile(j + N - 1, 0);
    memory_fence();
    if (add) {
        _tile_loadd(0, sums, 64);
        if (N > 1) _tile_loadd(1, sums + kTileWords, 64);
        if (M > 1) _tile_loadd(2, sums + line * kTileWords, 64);
        if (M > 1 && N > 1) _tile_loadd(3, sums + (line + 1) * kTileWords, 64);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    for (int64_t at = 0; at < a.depth * kTileWords; at += kTileWords) {
        _tile_loadd(4, a0 + at, 64);
        _tile_loadd(6, b0 + at, 64);
        _tile_dpbf16ps(0, 4, 6);
        if (N > 1) {
            _tile_loadd(7, b1 + at, 64);
            _tile_dpbf16ps(1, 4, 7);
        }
        if (M > 1) {
            _tile_loadd(5, a1 + at, 64);
            _tile_dpbf16ps(2, 5, 6);
            if (N > 1) _tile_dpbf16ps(3, 5, 7);
        }
    }
    _tile_stored(0, sums, 64);
    if (N > 1) _tile_stored(1, sums + kTileWords, 64);
    if (M > 1) _tile_stored(2, sums + line * kTileWords, 64);
    if (M > 1 && N > 1) _tile_stored(3, sums + (line + 1) * kTileWords, 64);
    memory_fence();
}
#endif

struct NoSetup {};
#ifdef LORASCOPE_TILES
template <bool kTilesUsed> using Setup = std::conditional_t<kTilesUsed, TileSetup, NoSetup>;
#else
template <bool kTilesUsed> using Setup = NoSetup;
#endif

// Puts the tiles of a product: tile rows i to i + m of the left factor, tile columns j to j + n of the right one. Result
// tiles of a row lie beside each other, and rows `line` tiles apart.
template <bool kTilesUsed>
void multiply(const Tiled& a, int64_t i, int64_t m, const Tiled& b, int64_t j, int64_t n, float* sums, int64_t line,
              bool add = false) {
    const auto block = [&](auto rows, auto columns, int64_t row, int64_t column) {
        constexpr int kRows = decltype(rows)::value, kColumns = decltype(columns)::value;
        float* to = sums + ((row - i) * line + column - j) * kTileWords;
#ifdef LORASCOPE_TILES
        if constexpr (kTilesUsed) sum_with_tiles<kRows, kColumns>(a, row, b, column, to, line, add);
        else
#endif
            sum_with_vectors<kRows, kColumns>(a, row, b, column, to, line, add);
    };
    using One = std::integral_constant<int, 1>;
    using Two = std::integral_constant<int, 2>;
    for (int64_t column = j; column < j + n; column += 2)
        for (int64_t row = i; row < i + m; row += 2) {
            const bool two_rows = row + 1 < i + m, two_columns = column + 1 < j + n;
            if (two_rows && two_columns) block(Two{}, Two{}, row, column);
            else if (two_rows) block(Two{}, One{}, row, column);
            else if (two_columns) block(One{}, Two{}, row, column);
            else block(One{}, One{}, row, column);
        }
}

// 32 neighbours of a row; those that are not kept are zero.
inline __m512i kept_pairs(const bfloat16* from, uint32_t kept) { return _mm512_maskz_loadu_epi16(kept, from); }

// A tile (pair, column) of 32 rows and 16 columns, from one vector of 16 numbers a row: get(row).
template <class Get> void interleave(words tile[kLanes], Get get) {
    for (int64_t pair = 0; pair < kLanes; ++pair)
        tile[pair] = widened(get(2 * pair)) | widened(get(2 * pair + 1)) << 16;
}

inline void turn(words tile[kLanes]) {
    transpose_stage<8>(tile), transpose_stage<4>(tile), transpose_stage<2>(tile), transpose_stage<1>(tile);
}

inline void put(uint32_t* to, const words tile[kLanes]) {
    for (int64_t r = 0; r < kLanes; ++r) write(to + r * kLanes, tile[r]);
}

// A tile of 16 rows and 32 columns becomes one of pairs (column pair, row). Rows behind `rows` are zero.
inline void turned_rows(const bfloat16* from, int64_t ld, int64_t rows, int64_t columns, uint32_t* to) {
    const uint32_t inside = columns >= kPairs ? ~0u : (1u << columns) - 1;
    words tile[kLanes] = {};
    for (int64_t r = 0; r < std::min(rows, kLanes); ++r) tile[r] = (words)kept_pairs(from + r * ld, inside);
    turn(tile), put(to, tile);
}

// A tile of pairs of rows (row pair, column), 32 rows and 16 columns; rows and columns behind the matrix are zero.
inline void paired_rows(const bfloat16* from, int64_t ld, int64_t rows, int64_t columns, uint32_t* to) {
    const __mmask16 inside = columns >= kLanes ? 0xffff : (1u << columns) - 1;
    words tile[kLanes];
    interleave(tile, [&](int64_t r) {
        return r < rows ? (halves)_mm256_maskz_loadu_epi16(inside, from + r * ld) : halves{};
    });
    put(to, tile);
}

// Makes the memory of the factors of a call, and hands out parts of it.
class TileMemory {
    Aligned<uint32_t>& memory;
    std::vector<std::pair<Tiled*, int64_t>> wanted;

  public:
    explicit TileMemory(Aligned<uint32_t>& memory) : memory(memory) {}
    void add(Tiled& to, int64_t sides, int64_t depth) {
        to.depth = depth;
        wanted.emplace_back(&to, sides * depth * kTileWords);
    }
    void make() {
        int64_t all = 0;
        for (const auto& [to, size] : wanted) all += size;
        uint32_t* at = memory.fit(all);
        for (const auto& [to, size] : wanted) to->data = at, at += size;
    }
};

constexpr int64_t kSlots = 64;  // of a task

constexpr int64_t kPanel = 32;  // tile columns whose sums exist at once

// 16 rows of sums lie in tiles beside each other: the part of one row in each.
struct SumsRow {
    const float* first;
    floats operator[](int64_t tile) const { return load(first + tile * kTileWords); }
};

// Multiplies in panels, and calls use(row of the left factor, first tile column, tile columns, sums of the row): results
// go to memory row by row, as whole stretches of it. Results of tiles one by one would touch a page of memory a row.
template <bool kTilesUsed, class Use>
void multiply_panels(const Tiled& left, int64_t rows, const Tiled& right, int64_t columns, Aligned<float>& memory,
                     Use use) {
    for (int64_t first = 0; first < columns; first += kPanel) {
        const int64_t wide = std::min(kPanel, columns - first);
        float* sums = memory.fit(rows * wide * kTileWords);
        multiply<kTilesUsed>(left, 0, rows, right, first, wide, sums, wide);
        for (int64_t i = 0; i < rows; ++i)
            for (int64_t r = 0; r < kLanes; ++r)
                use(i * kLanes + r, first, wide, SumsRow{sums + i * wide * kTileWords + r * kLanes});
    }
}

// Products of n rows with a right factor, in a parallel region: get(row, p) gives words p * 16 to p * 16 + 15 of a row,
// use is that of multiply_panels.
template <bool kTilesUsed, class Get, class Use>
void multiply_rows(int64_t n, const Tiled& right, int64_t columns, Get get, Use use) {
    Aligned<uint32_t> memory;
    Aligned<float> sums;
#pragma omp for schedule(dynamic)
    for (int64_t first = 0; first < n; first += kSlots) {
        const int64_t slots = std::min(kSlots, n - first), rows = round_up(slots, kLanes) / kLanes;
        Tiled left;
        TileMemory room(memory);
        room.add(left, rows, right.depth);
        room.make();
        for (int64_t t = 0; t < rows * kLanes; ++t) {
            uint32_t* to = left.tile(t / kLanes, 0) + t % kLanes * kLanes;
            for (int64_t p = 0; p < right.depth; ++p)
                write(to + p * kTileWords, t < slots ? get(first + t, p) : words{});
        }
        multiply_panels<kTilesUsed>(left, rows, right, columns, sums,
                                    [&](int64_t t, int64_t j, int64_t wide, const SumsRow& row) {
            if (t < slots) use(first + t, j, wide, row);
        });
    }
}

// 32 numbers of two tiles' row.
inline void store_pair(bfloat16* to, floats low, floats high) {
    write(to, (words)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low));
}

// A frozen layer y = x W^T + b; kernels/calls.py has the same fields in the same order.
struct Linear {
    int64_t out;
    const bfloat16 *weight, *bias;  // [out, in]; [out] or null
    bfloat16* y;                    // [n, out], or its gradient going back
};

thread_local Aligned<uint32_t> frozen_memory;

// The weights of layers with one input beside each other, as the right factor of their outputs.
void fill_transposed(const Tiled& to, int64_t first, int64_t every, int64_t in, int64_t out, const bfloat16* weight) {
#pragma omp for schedule(static)
    for (int64_t i = 0; i < out / kLanes; ++i)
        for (int64_t p = 0; p < in / kPairs; ++p)
            turned_rows(weight + i * kLanes * in + p * kPairs, in, kLanes, kPairs, to.tile(first + i * every, p));
}

// A weight as the right factor of its input's gradient.
void fill_plain(const Tiled& to, int64_t first, int64_t in, int64_t out, const bfloat16* weight) {
#pragma omp for schedule(static)
    for (int64_t p = 0; p < out / kPairs; ++p)
        for (int64_t i = 0; i < in / kLanes; ++i)
            paired_rows(weight + p * kPairs * in + i * kLanes, in, kPairs, kLanes, to.tile(i, first + p));
}

template <bool kTilesUsed>
void linear_forward_with(int64_t n, int64_t in, int64_t count, const Linear* layers, const bfloat16* x) {
    std::vector<const Linear*> owner;  // of each pair of tile columns
    std::vector<int64_t> begin;
    for (int64_t layer = 0; layer < count; ++layer) {
        begin.push_back(2 * int64_t(owner.size()));
        owner.insert(owner.end(), layers[layer].out / kPairs, layers + layer);
    }
    Tiled right;
    TileMemory room(frozen_memory);
    room.add(right, 2 * int64_t(owner.size()), in / kPairs);
    room.make();
#pragma omp parallel
    {
        [[maybe_unused]] Setup<kTilesUsed> setup;
        for (int64_t layer = 0; layer < count; ++layer)
            fill_transposed(right, begin[layer], 1, in, layers[layer].out, layers[layer].weight);
        multiply_rows<kTilesUsed>(
            n, right, 2 * int64_t(owner.size()),
            [&](int64_t row, int64_t p) { return read<words>(x + row * in + p * kPairs); },
            [&](int64_t row, int64_t first, int64_t wide, const SumsRow& sums) {
                for (int64_t j = 0; j < wide; j += 2) {
                    const Linear& own = *owner[(first + j) / 2];
                    const int64_t column = (first + j - begin[&own - layers]) * kLanes;
                    floats low = sums[j], high = sums[j + 1];
                    if (own.bias != nullptr) low += load(own.bias + column), high += load(own.bias + column + kLanes);
                    store_pair(own.y + row * own.out + column, low, high);
                }
            });
    }
}

// dx = the sum of dy W over layers with one input
template <bool kTilesUsed>
void linear_backward_with(int64_t n, int64_t in, int64_t count, const Linear* layers, bfloat16* dx) {
    std::vector<std::pair<const bfloat16*, int64_t>> parts;  // where 32 columns of a gradient begin, and its width
    for (int64_t layer = 0; layer < count; ++layer)
        for (int64_t column = 0; column < layers[layer].out; column += kPairs)
            parts.emplace_back(layers[layer].y + column, layers[layer].out);
    Tiled right;
    TileMemory room(frozen_memory);
    room.add(right, in / kLanes, parts.size());
    room.make();
#pragma omp parallel
    {
        [[maybe_unused]] Setup<kTilesUsed> setup;
        for (int64_t layer = 0, first = 0; layer < count; first += layers[layer++].out / kPairs)
            fill_plain(right, first, in, layers[layer].out, layers[layer].weight);
        multiply_rows<kTilesUsed>(
            n, right, in / kLanes,
            [&](int64_t row, int64_t p) { return read<words>(parts[p].first + row * parts[p].second); },
            [&](int64_t row, int64_t first, int64_t wide, const SumsRow& sums) {
                for (int64_t j = 0; j < wide; j += 2)
                    store_pair(dx + row * in + (first + j) * kLanes, sums[j], sums[j + 1]);
            });
    }
}

// gated = x G^T, raised = x U^T, y = silu(gated) * raised, all [n, mid]
template <bool kTilesUsed>
void gated_forward_with(int64_t n, int64_t in, int64_t mid, const bfloat16* x, const bfloat16* gate, const bfloat16* up,
                        bfloat16* gated, bfloat16* raised, bfloat16* y) {
    Tiled right;
    TileMemory room(frozen_memory);
    room.add(right, 2 * mid / kLanes, in / kPairs);
    room.make();
#pragma omp parallel
    {
        [[maybe_unused]] Setup<kTilesUsed> setup;
        fill_transposed(right, 0, 2, in, mid, gate), fill_transposed(right, 1, 2, in, mid, up);
        multiply_rows<kTilesUsed>(
            n, right, 2 * mid / kLanes,
            [&](int64_t row, int64_t p) { return read<words>(x + row * in + p * kPairs); },
            [&](int64_t row, int64_t first, int64_t wide, const SumsRow& sums) {
                for (int64_t j = 0; j < wide; j += 2) {
                    const int64_t at = row * mid + (first + j) / 2 * kLanes;
                    const floats g = sums[j], u = sums[j + 1];
                    store(gated + at, g), store(raised + at, u), store(y + at, g * sigmoid(g) * u);
                }
            });
    }
}

// From the gradient of down's output to those of gate's and up's.
template <bool kTilesUsed>
void gated_backward_with(int64_t n, int64_t out, int64_t mid, const bfloat16* dy, const bfloat16* down,
                         const bfloat16* gated, const bfloat16* raised, bfloat16* dgated, bfloat16* draised) {
    Tiled right;
    TileMemory room(frozen_memory);
    room.add(right, mid / kLanes, out / kPairs);
    room.make();
#pragma omp parallel
    {
        [[maybe_unused]] Setup<kTilesUsed> setup;
        fill_plain(right, 0, mid, out, down);
        multiply_rows<kTilesUsed>(
            n, right, mid / kLanes,
            [&](int64_t row, int64_t p) { return read<words>(dy + row * out + p * kPairs); },
            [&](int64_t row, int64_t first, int64_t wide, const SumsRow& sums) {
                for (int64_t j = 0; j < wide; ++j) {
                    const int64_t at = row * mid + (first + j) * kLanes;
                    const floats g = load(gated + at), grad = sums[j], s = sigmoid(g);
                    store(dgated + at, grad * load(raised + at) * s * (1 + g * (1 - s)));
                    store(draised + at, grad * g * s);
                }
            });
    }
}

// Rows of a matrix as a left factor: tile rows [first, stop), `depth` tiles from column `from` on; zero behind n rows.
inline void fill_left(const Tiled& to, int64_t first, int64_t stop, const bfloat16* x, int64_t n, int64_t ld) {
    for (int64_t t = first * kLanes; t < stop * kLanes; ++t)
        for (int64_t p = 0; p < to.depth; ++p)
            write(to.tile(t / kLanes, p) + t % kLanes * kLanes,
                  t < n ? read<words>(x + t * ld + p * kPairs) : words{});
}

// y [n, out] = x W^T + b for few rows and many outputs: a task takes all rows and a panel of outputs.
template <bool kTilesUsed>
void head_forward_with(int64_t n, int64_t in, int64_t out, const bfloat16* x, const bfloat16* weight,
                       const bfloat16* bias, bfloat16* y) {
    const int64_t rows = round_up(n, kLanes) / kLanes, depth = in / kPairs, columns = out / kLanes;
    Tiled left;
    TileMemory room(frozen_memory);
    room.add(left, rows, depth);
    room.make();
#pragma omp parallel
    {
        [[maybe_unused]] Setup<kTilesUsed> setup;
        Aligned<uint32_t> memory;
        Aligned<float> sums;
#pragma omp for schedule(static)
        for (int64_t i = 0; i < rows; ++i) fill_left(left, i, i + 1, x, n, in);
#pragma omp for schedule(dynamic)
        for (int64_t first = 0; first < columns; first += kPanel) {
            const int64_t wide = std::min(kPanel, columns - first);
            Tiled right;
            TileMemory own_room(memory);
            own_room.add(right, wide, depth);
            own_room.make();
            for (int64_t j = 0; j < wide; ++j)
                for (int64_t p = 0; p < depth; ++p)
                    turned_rows(weight + (first + j) * kLanes * in + p * kPairs, in, kLanes, kPairs, right.tile(j, p));
            for (int64_t i = 0; i < rows; i += kSlots / kLanes) {
                const int64_t high = std::min(kSlots / kLanes, rows - i);
                sums.fit(high * wide * kTileWords);
                multiply<kTilesUsed>(left, i, high, right, 0, wide, sums.data, wide);
                for (int64_t t = i * kLanes; t < std::min(n, (i + high) * kLanes); ++t) {
                    const SumsRow row{sums.data + (t / kLanes - i) * wide * kTileWords + t % kLanes * kLanes};
                    for (int64_t j = 0; j < wide; j += 2) {
                        const int64_t column = (first + j) * kLanes;
                        floats low = row[j], higher = row[j + 1];
                        if (bias != nullptr) low += load(bias + column), higher += load(bias + column + kLanes);
                        store_pair(y + t * out + column, low, higher);
                    }
                }
            }
        }
    }
}

// dx [n, in] = dy W for few rows and many outputs, which are summed over in kGroups groups, each in chunks of kChunk: what
// is added to what does not depend on threads.
template <bool kTilesUsed>
void head_backward_with(int64_t n, int64_t in, int64_t out, const bfloat16* dy, const bfloat16* weight, bfloat16* dx) {
    constexpr int64_t kGroups = 8, kChunk = 512;
    thread_local Aligned<float> all_sums;
    const int64_t rows = round_up(n, kLanes) / kLanes, columns = in / kLanes, size = rows * columns * kTileWords;
    float* sums = all_sums.fit(kGroups * size);
    const int64_t panels = (columns + 48 - 1) / 48, panel = round_up((columns + panels - 1) / panels, 2);
#pragma omp parallel
    {
        [[maybe_unused]] Setup<kTilesUsed> setup;
        Aligned<uint32_t> memory;
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < kGroups * panels; ++task) {
            const int64_t group = task % kGroups, begin = task / kGroups * panel, wide = std::min(panel, columns - begin);
            float* own = sums + group * size + begin * kTileWords;
            for (int64_t first = group * kChunk; first < out; first += kGroups * kChunk) {
                const int64_t depth = std::min(kChunk, out - first) / kPairs;
                Tiled left, right;
                TileMemory room(memory);
                room.add(left, rows, depth), room.add(right, wide, depth);
                room.make();
                fill_left(left, 0, rows, dy + first, n, out);
                for (int64_t p = 0; p < depth; ++p)
                    for (int64_t j = 0; j < wide; ++j)
                        paired_rows(weight + (first + p * kPairs) * in + (begin + j) * kLanes, in, kPairs, kLanes,
                                    right.tile(j, p));
                multiply<kTilesUsed>(left, 0, rows, right, 0, wide, own, columns, first >= kGroups * kChunk);
            }
        }
        const int64_t used = std::min(kGroups, (out + kChunk - 1) / kChunk);
#pragma omp for schedule(static)
        for (int64_t t = 0; t < n; ++t)
            for (int64_t j = 0; j < columns; ++j) {
                const float* at = sums + (t / kLanes * columns + j) * kTileWords + t % kLanes * kLanes;
                floats sum = load(at);
                for (int64_t group = 1; group < used; ++group) sum += load(at + group * size);
                store(dx + t * in + j * kLanes, sum);
            }
    }
}

// One adapter in a layer and the slots that are its own; kernels/calls.py has the same fields in the same order.
struct LoraPart {
    int64_t first, slots, rank;  // slots are a multiple of 32
    double factor;
    const bfloat16 *a, *b;  // [rank, in], [out, rank]
    bfloat16* hidden;       // dropped(x) A^T [slots, rank filled up to 32]
    float *da, *db;         // gradients to add to, as a and b
    int64_t rows;           // of the dropout's bits; 0 without dropout
    const int64_t* widths;
    const uint16_t* kept;

    int64_t wide() const { return round_up(rank, kPairs); }
    int64_t tiles() const { return round_up(rank, kLanes) / kLanes; }

    // Where each slot's bits begin.
    std::vector<const uint16_t*> bits(int64_t in) const {
        std::vector<const uint16_t*> found(slots, nullptr);
        const uint16_t* own = kept;
        for (int64_t row = 0, slot = 0; row < rows; ++row) {
            for (int64_t i = 0; i < widths[row]; ++i) found[slot++] = own + i * in / kLanes;
            own += (widths[row] * in + kBlock - 1) / kBlock * (kBlock / kLanes);
        }
        return found;
    }
};

inline uint32_t two_words(const uint16_t* kept, int64_t part) {
    return kept == nullptr ? ~0u : uint32_t(kept[part]) | uint32_t(kept[part + 1]) << 16;
}

// Tasks of all parts, `each` giving a part's number of them: use(part, task in the part).
template <class Each, class Use> void for_each_part(int64_t parts, Each each, Use use) {
    std::vector<int64_t> first(parts + 1, 0);
    for (int64_t part = 0; part < parts; ++part) first[part + 1] = first[part] + each(part);
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < first[parts]; ++task) {
        int64_t part = 0;
        while (task >= first[part + 1]) ++part;
        use(part, task - first[part]);
    }
}

template <bool kTilesUsed>
void lora_forward_with(int64_t n, const LoraPart* parts, int64_t in, int64_t out, const bfloat16* x, bfloat16* y) {
    thread_local Aligned<uint32_t> memory;
    struct Operands {
        Tiled a, b;  // A^T and B^T
    };
    std::vector<Operands> operands(n);
    std::vector<std::vector<const uint16_t*>> bits(n);
    TileMemory room(memory);
    for (int64_t part = 0; part < n; ++part) {
        room.add(operands[part].a, parts[part].tiles(), in / kPairs);
        room.add(operands[part].b, out / kLanes, parts[part].wide() / kPairs);
        bits[part] = parts[part].bits(in);
    }
    room.make();
#pragma omp parallel
    {
        [[maybe_unused]] Setup<kTilesUsed> setup;
        for_each_part(n, [&](int64_t part) { return parts[part].tiles(); }, [&](int64_t part, int64_t i) {
            const LoraPart& own = parts[part];
            for (int64_t p = 0; p < in / kPairs; ++p)
                turned_rows(own.a + i * kLanes * in + p * kPairs, in, own.rank - i * kLanes, kPairs,
                            operands[part].a.tile(i, p));
        });
        for_each_part(n, [&](int64_t) { return out / kLanes; }, [&](int64_t part, int64_t i) {
            const LoraPart& own = parts[part];
            for (int64_t p = 0; p < own.wide() / kPairs; ++p)
                turned_rows(own.b + i * kLanes * own.rank + p * kPairs, own.rank, kLanes, own.rank - p * kPairs,
                            operands[part].b.tile(i, p));
        });
        Aligned<uint32_t> own_memory;
        Aligned<float> sums_memory;
        for_each_part(n, [&](int64_t part) { return (parts[part].slots + kSlots - 1) / kSlots; },
                      [&](int64_t part, int64_t task) {
            const LoraPart& own = parts[part];
            const int64_t first = task * kSlots, slots = std::min(kSlots, own.slots - first), wide = own.wide();
            Tiled dropped, hidden;
            TileMemory room(own_memory);
            room.add(dropped, slots / kLanes, in / kPairs), room.add(hidden, slots / kLanes, wide / kPairs);
            room.make();
            for (int64_t t = 0; t < slots; ++t) {
                const uint16_t* kept = bits[part][first + t];
                const bfloat16* row = x + (own.first + first + t) * in;
                uint32_t* to = dropped.tile(t / kLanes, 0) + t % kLanes * kLanes;
                for (int64_t p = 0; p < in / kPairs; ++p)
                    write(to + p * kTileWords, kept_pairs(row + p * kPairs, two_words(kept, 2 * p)));
            }
            const auto keep = [&](int64_t t, int64_t j, halves h) {
                write(own.hidden + (first + t) * wide + j * kLanes, h);
                write(hidden.tile(t / kLanes, j / 2) + t % kLanes * kLanes + j % 2 * (kLanes / 2), h);
            };
            multiply_panels<kTilesUsed>(dropped, slots / kLanes, operands[part].a, own.tiles(), sums_memory,
                                        [&](int64_t t, int64_t j, int64_t wide_here, const SumsRow& sums) {
                for (int64_t c = 0; c < wide_here; ++c) keep(t, j + c, rounded(sums[c]));
            });
            if (own.tiles() % 2 != 0)
                for (int64_t t = 0; t < slots; ++t) keep(t, own.tiles(), halves{});
            const float factor = float(own.factor);
            multiply_panels<kTilesUsed>(hidden, slots / kLanes, operands[part].b, out / kLanes, sums_memory,
                                        [&](int64_t t, int64_t j, int64_t wide_here, const SumsRow& sums) {
                bfloat16* to = y + (own.first + first + t) * out + j * kLanes;
                for (int64_t c = 0; c < wide_here; ++c)
                    store(to + c * kLanes, load(to + c * kLanes) + factor * sums[c]);
            });
        });
    }
}

template <bool kTilesUsed>
void lora_backward_with(int64_t n, const LoraPart* parts, int64_t in, int64_t out, const bfloat16* x, const bfloat16* dy,
                        bfloat16* dx) {
    thread_local Aligned<uint32_t> memory;
    struct Operands {
        Tiled b, a;                   // B and A, to go back through
        Tiled dhidden, x, dy, hidden;  // summed over slots
    };
    std::vector<Operands> operands(n);
    std::vector<std::vector<const uint16_t*>> bits(n);
    TileMemory room(memory);
    for (int64_t part = 0; part < n; ++part) {
        const LoraPart& own = parts[part];
        Operands& to = operands[part];
        const int64_t depth = own.slots / kPairs;
        room.add(to.b, own.tiles(), out / kPairs), room.add(to.a, in / kLanes, own.wide() / kPairs);
        room.add(to.dhidden, own.tiles(), depth), room.add(to.x, in / kLanes, depth);
        room.add(to.dy, out / kLanes, depth), room.add(to.hidden, own.tiles(), depth);
        bits[part] = own.bits(in);
    }
    room.make();
#pragma omp parallel
    {
        [[maybe_unused]] Setup<kTilesUsed> setup;
        for_each_part(n, [&](int64_t part) { return parts[part].tiles(); }, [&](int64_t part, int64_t i) {
            const LoraPart& own = parts[part];
            for (int64_t p = 0; p < out / kPairs; ++p)
                paired_rows(own.b + p * kPairs * own.rank + i * kLanes, own.rank, kPairs, own.rank - i * kLanes,
                            operands[part].b.tile(i, p));
        });
        for_each_part(n, [&](int64_t) { return dx == nullptr ? 0 : in / kLanes; }, [&](int64_t part, int64_t i) {
            const LoraPart& own = parts[part];
            for (int64_t p = 0; p < own.wide() / kPairs; ++p)
                paired_rows(own.a + p * kPairs * in + i * kLanes, in, own.rank - p * kPairs, kLanes,
                            operands[part].a.tile(i, p));
        });
        Aligned<uint32_t> own_memory;
        Aligned<float> sums_memory;
        for_each_part(n, [&](int64_t part) { return (parts[part].slots + kSlots - 1) / kSlots; },
                      [&](int64_t part, int64_t task) {
            const LoraPart& own = parts[part];
            const Operands& to = operands[part];
            const int64_t first = task * kSlots, slots = std::min(kSlots, own.slots - first), wide = own.wide();
            Tiled grad, dhidden;
            TileMemory room(own_memory);
            room.add(grad, slots / kLanes, out / kPairs), room.add(dhidden, slots / kLanes, wide / kPairs);
            room.make();
            for (int64_t t = 0; t < slots; ++t) {
                const bfloat16* row = dy + (own.first + first + t) * out;
                uint32_t* line = grad.tile(t / kLanes, 0) + t % kLanes * kLanes;
                for (int64_t p = 0; p < out / kPairs; ++p) write(line + p * kTileWords, read<words>(row + p * kPairs));
            }
            for (int64_t t = 0; t < slots; t += kPairs) {
                const int64_t p = (first + t) / kPairs, slot = own.first + first + t;
                words tile[kLanes];
                for (int64_t j = 0; j < out / kLanes; ++j) {
                    interleave(tile, [&](int64_t r) { return read<halves>(dy + (slot + r) * out + j * kLanes); });
                    turn(tile), put(to.dy.tile(j, p), tile);
                }
                for (int64_t j = 0; j < own.tiles(); ++j)
                    paired_rows(own.hidden + (first + t) * wide + j * kLanes, wide, kPairs, kLanes,
                                to.hidden.tile(j, p));
                for (int64_t j = 0; j < in / kLanes; ++j) {
                    interleave(tile, [&](int64_t r) {
                        const uint16_t* kept = bits[part][first + t + r];
                        const __mmask16 chosen = kept == nullptr ? 0xffff : kept[j];
                        return (halves)_mm256_maskz_loadu_epi16(chosen, x + (slot + r) * in + j * kLanes);
                    });
                    put(to.x.tile(j, p), tile);
                }
            }
            const float factor = float(own.factor);
            const auto keep = [&](int64_t t, int64_t j, halves h) {
                write(dhidden.tile(t / kLanes, j / 2) + t % kLanes * kLanes + j % 2 * (kLanes / 2), h);
            };
            multiply_panels<kTilesUsed>(grad, slots / kLanes, to.b, own.tiles(), sums_memory,
                                        [&](int64_t t, int64_t j, int64_t wide_here, const SumsRow& sums) {
                for (int64_t c = 0; c < wide_here; ++c) keep(t, j + c, rounded(factor * sums[c]));
            });
            if (own.tiles() % 2 != 0)
                for (int64_t t = 0; t < slots; ++t) keep(t, own.tiles(), halves{});
            for (int64_t t = 0; t < slots; t += kPairs)
                for (int64_t j = 0; j < own.tiles(); ++j) {
                    words tile[kLanes];
                    interleave(tile, [&](int64_t r) {
                        return read<halves>(dhidden.tile((t + r) / kLanes, j / 2) + (t + r) % kLanes * kLanes +
                                            j % 2 * (kLanes / 2));
                    });
                    turn(tile), put(to.dhidden.tile(j, (first + t) / kPairs), tile);
                }
            if (dx == nullptr) return;
            multiply_panels<kTilesUsed>(dhidden, slots / kLanes, to.a, in / kLanes, sums_memory,
                                        [&](int64_t t, int64_t j, int64_t wide_here, const SumsRow& sums) {
                const uint16_t* kept = bits[part][first + t];
                bfloat16* line = dx + (own.first + first + t) * in + j * kLanes;
                for (int64_t c = 0; c < wide_here; ++c) {
                    const floats more = kept == nullptr ? sums[c] : where(unpacked(kept[j + c]), sums[c], 0);
                    store(line + c * kLanes, load(line + c * kLanes) + more);
                }
            });
        });
        // two tile columns of A's gradient a task, then as many tile rows of B's
        for_each_part(n, [&](int64_t) { return (in + kPairs - 1) / kPairs; }, [&](int64_t part, int64_t task) {
            const LoraPart& own = parts[part];
            const Operands& from = operands[part];
            float* sums = sums_memory.fit(own.tiles() * 2 * kTileWords);
            multiply<kTilesUsed>(from.dhidden, 0, own.tiles(), from.x, 2 * task, 2, sums, 2);
            for (int64_t r = 0; r < own.rank; ++r) {
                const SumsRow row{sums + r / kLanes * 2 * kTileWords + r % kLanes * kLanes};
                float* to = own.da + r * in + task * kPairs;
                store(to, load(to) + row[0]), store(to + kLanes, load(to + kLanes) + row[1]);
            }
        });
        for_each_part(n, [&](int64_t) { return out / kPairs; }, [&](int64_t part, int64_t task) {
            const LoraPart& own = parts[part];
            const Operands& from = operands[part];
            const float factor = float(own.factor);
            float* sums = sums_memory.fit(2 * own.tiles() * kTileWords);
            multiply<kTilesUsed>(from.dy, 2 * task, 2, from.hidden, 0, own.tiles(), sums, own.tiles());
            for (int64_t r = 0; r < kPairs; ++r) {
                const SumsRow row{sums + r / kLanes * own.tiles() * kTileWords + r % kLanes * kLanes};
                float* to = own.db + (task * kPairs + r) * own.rank;
                for (int64_t j = 0, left = own.rank; left > 0; ++j, left -= kLanes)
                    store(to + j * kLanes, load(to + j * kLanes, left) + factor * row[j], left);
            }
        });
    }
}

#ifdef LORASCOPE_TILES
#define LORASCOPE_PICK(function, ...) \
    return may_use_tiles() ? function<true>(__VA_ARGS__) : function<false>(__VA_ARGS__)
#else
#define LORASCOPE_PICK(function, ...) return function<false>(__VA_ARGS__)
#endif

// All widths are multiples of 32.
void linear_forward(int64_t n, int64_t in, int64_t count, const Linear* layers, const bfloat16* x) {
    LORASCOPE_PICK(linear_forward_with, n, in, count, layers, x);
}
void linear_backward(int64_t n, int64_t in, int64_t count, const Linear* layers, bfloat16* dx) {
    LORASCOPE_PICK(linear_backward_with, n, in, count, layers, dx);
}
void gated_forward(int64_t n, int64_t in, int64_t mid, const bfloat16* x, const bfloat16* gate, const bfloat16* up,
                   bfloat16* gated, bfloat16* raised, bfloat16* y) {
    LORASCOPE_PICK(gated_forward_with, n, in, mid, x, gate, up, gated, raised, y);
}
void gated_backward(int64_t n, int64_t out, int64_t mid, const bfloat16* dy, const bfloat16* down, const bfloat16* gated,
                    const bfloat16* raised, bfloat16* dgated, bfloat16* draised) {
    LORASCOPE_PICK(gated_backward_with, n, out, mid, dy, down, gated, raised, dgated, draised);
}
void head_forward(int64_t n, int64_t in, int64_t out, const bfloat16* x, const bfloat16* weight, const bfloat16* bias,
                  bfloat16* y) {
    LORASCOPE_PICK(head_forward_with, n, in, out, x, weight, bias, y);
}
void head_backward(int64_t n, int64_t in, int64_t out, const bfloat16* dy, const bfloat16* weight, bfloat16* dx) {
    LORASCOPE_PICK(head_backward_with, n, in, out, dy, weight, dx);
}
void lora_forward(int64_t n, const LoraPart* parts, int64_t in, int64_t out, const bfloat16* x, bfloat16* y) {
    LORASCOPE_PICK(lora_forward_with, n, parts, in, out, x, y);
}
// Adds to dx, or leaves it out if it is null.
void lora_backward(int64_t n, const LoraPart* parts, int64_t in, int64_t out, const bfloat16* x, const bfloat16* dy,
                   bfloat16* dx) {
    LORASCOPE_PICK(lora_backward_with, n, parts, in, out, x, dy, dx);
}

#endif

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
extern "C" {
auto dropout_bits = &kept_bits;
}
LORASCOPE_EXPORT(dropout)
LORASCOPE_EXPORT(add_dropped)
LORASCOPE_EXPORT(attention_forward)
LORASCOPE_EXPORT(attention_backward)
#ifdef LORASCOPE_PAIRS
extern "C" {
auto linear_forward_bfloat16 = &linear_forward;
auto linear_backward_bfloat16 = &linear_backward;
auto gated_forward_bfloat16 = &gated_forward;
auto gated_backward_bfloat16 = &gated_backward;
auto head_forward_bfloat16 = &head_forward;
auto head_backward_bfloat16 = &head_backward;
auto lora_forward_bfloat16 = &lora_forward;
auto lora_backward_bfloat16 = &lora_backward;
}
#endif
