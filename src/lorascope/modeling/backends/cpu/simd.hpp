// SIMD vectors of 16 numbers (8 without AVX-512), aligned memory, and the setup of the tile unit.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#ifdef __AVX2__
#include <immintrin.h>
#endif
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace {

// A vector of floats fills one register: GCC keeps larger ones in memory.
#ifdef __AVX512F__
constexpr int64_t kLanes = 16;
typedef uint16_t lane_bits;  // one bit a lane
#else
constexpr int64_t kLanes = 8;
typedef uint8_t lane_bits;
#endif

struct bfloat16 {
    uint16_t bits;
};

template <class T> struct compute { using type = float; };
template <> struct compute<double> { using type = double; };
template <class T> using compute_t = typename compute<T>::type;

typedef float floats __attribute__((vector_size(4 * kLanes)));
typedef double doubles __attribute__((vector_size(8 * kLanes)));
typedef uint32_t words __attribute__((vector_size(4 * kLanes)));
typedef uint16_t halves __attribute__((vector_size(2 * kLanes)));
template <class C> struct lanes { using type = floats; };
template <> struct lanes<double> { using type = doubles; };
template <class C> using lanes_t = typename lanes<C>::type;

// --- numbers from memory and back

// A vector anywhere in memory, whatever type the memory has. (GCC copies a whole vector in two halves for memcpy.)
template <class V> struct anywhere { typedef V type __attribute__((aligned(1), may_alias)); };
template <class V> V read(const void* from) { return *(const typename anywhere<V>::type*)from; }
template <class V> void write(void* to, V x) { *(typename anywhere<V>::type*)to = x; }

inline words widened(halves x) {
#ifdef __AVX512F__
    return (words)_mm512_cvtepu16_epi32((__m256i)x);  // GCC emits two instructions for the line below
#elif defined(__AVX2__)
    return (words)_mm256_cvtepu16_epi32((__m128i)x);
#else
    return __builtin_convertvector(x, words);
#endif
}

inline halves rounded(floats x) {
#ifdef __AVX512BF16__
    return (halves)_mm512_cvtneps_pbh((__m512)x);
#else
    const words bits = (words)x, nearest = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;  // ties to even
    const words sure = x == x ? nearest : words{} + 0x7fc0u;  // else a NaN could become a number
#if defined(__AVX2__) && !defined(__AVX512F__)
    const __m256i joined = _mm256_packus_epi32((__m256i)sure, (__m256i)sure);  // in each half of the register
    return (halves)_mm256_castsi256_si128(_mm256_permute4x64_epi64(joined, 0b1000));
#else
    return __builtin_convertvector(sure, halves);
#endif
#endif
}

inline floats load(const bfloat16* from) { return (floats)(widened(read<halves>(from)) << 16); }
template <class C> lanes_t<C> load(const C* from) { return read<lanes_t<C>>(from); }

inline void store(bfloat16* to, floats x) { write(to, rounded(x)); }
template <class C> void store(C* to, lanes_t<C> x) { write(to, x); }

// The same for the last elements of a row, fewer than kLanes: the lanes behind them are zero, and are not stored.
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

// --- functions of vectors

typedef int32_t lane_mask __attribute__((vector_size(4 * kLanes)));  // -1 where chosen, 0 elsewhere

alignas(64) constexpr int32_t kLane[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

inline floats where(lane_mask chosen, floats x, float other) { return chosen ? x : floats{} + other; }
inline doubles where(lane_mask chosen, doubles x, double other) {
    for (int64_t l = 0; l < kLanes; ++l) x[l] = chosen[l] ? x[l] : other;
    return x;
}

// Lanes [first, stop); the bounds may lie outside of the vector.
inline lane_mask lanes_between(int64_t first, int64_t stop) {
    const lane_mask lane = read<lane_mask>(kLane);
    const auto near = [](int64_t bound) { return int32_t(std::clamp<int64_t>(bound, 0, kLanes)); };
    return (lane >= near(first)) & (lane < near(stop));
}

// One bit a lane, and back.
inline lane_bits packed(lane_mask chosen) {
#ifdef __AVX512F__
    return _mm512_cmplt_epi32_mask((__m512i)chosen, _mm512_setzero_si512());
#elif defined(__AVX2__)
    return lane_bits(_mm256_movemask_ps((__m256)chosen));
#else
    lane_bits bits = 0;
    for (int64_t l = 0; l < kLanes; ++l) bits |= lane_bits((chosen[l] & 1) << l);
    return bits;
#endif
}
inline lane_mask unpacked(lane_bits bits) { return -(lane_mask)((uint32_t(bits) >> read<words>(kLane)) & 1u); }

// exp of numbers up to 0: 2^n from the exponent bits, the rest from a polynomial (Cephes' expf coefficients); relative
// error below 2e-7, and 0 below -87. A NaN stays a NaN.
inline floats exp_of_negative(floats x) {
    constexpr float kShift = 12582912.0f + 127.0f;  // the lowest bits then hold n and the exponent's bias
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

// 1 / x of numbers between 1 and 2, an estimate and one step of Newton's method, which is quicker than a division.
inline floats reciprocal(floats x) {
#ifdef __AVX512F__
    const floats near = (floats)_mm512_rcp14_ps((__m512)x);
    return near * (2 - x * near);
#else
    return 1 / x;
#endif
}
inline doubles reciprocal(doubles x) { return 1 / x; }

template <class V> V sigmoid(V x) {
    const V e = exp_of_negative(x < 0 ? x : -x), positive = reciprocal(1 + e);
    return x < 0 ? e * positive : positive;
}

inline int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// Set if an allocation failed. No exception may leave a parallel region.
std::atomic<bool> no_memory{false};

// Memory that begins on a cache line: a tile whose rows straddle lines takes three times as long to load.
template <class C> struct Aligned {
    C* data = nullptr;
    size_t size = 0;

    C* fit(size_t needed) {
        if (size < needed) {
            std::free(data);
            data = (C*)std::aligned_alloc(64, round_up(int64_t(needed * sizeof(C)), 64));
            size = data == nullptr ? 0 : needed;
            if (data == nullptr) no_memory = true;
        }
        return data;
    }
    Aligned() = default;
    Aligned(const Aligned&) = delete;
    Aligned& operator=(const Aligned&) = delete;
    ~Aligned() { std::free(data); }
};

#if defined(__AVX512BF16__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#define LORASCOPE_PAIRS
#ifdef __AMX_BF16__
#define LORASCOPE_TILES
#endif

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
        row[r] = (words)_mm512_permutex2var_epi32((__m512i)left, (__m512i)from_left, (__m512i)right);
        row[r + kStep] = (words)_mm512_permutex2var_epi32((__m512i)left, (__m512i)from_right, (__m512i)right);
    }
}

inline void turn(words block[kLanes]) {
    transpose_stage<8>(block), transpose_stage<4>(block), transpose_stage<2>(block), transpose_stage<1>(block);
}

// to[c, r] = from[r, c] for whole 16 x 16 blocks of 4-byte numbers.
template <class N> void transpose(const N* from, int64_t rows, int64_t columns, int64_t ld_from, N* to, int64_t ld_to) {
    for (int64_t r = 0; r < rows; r += kLanes)
        for (int64_t c = 0; c < columns; c += kLanes) {
            words block[kLanes];
            for (int64_t i = 0; i < kLanes; ++i) block[i] = read<words>(from + (r + i) * ld_from + c);
            turn(block);
            for (int64_t i = 0; i < kLanes; ++i) write(to + (c + i) * ld_to + r, block[i]);
        }
}

#endif

// Linux requires a request before a process uses the tile unit.
inline bool may_use_tiles() {
#ifdef LORASCOPE_TILES
    constexpr long kRequest = 0x1023, kTileData = 18;
    static const bool granted = syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
    return granted;
#else
    return false;
#endif
}

#ifdef LORASCOPE_TILES

// GCC does not know which memory tile instructions read and write: no access may move across this.
inline void memory_fence() { asm volatile("" ::: "memory"); }

// Configures the tile unit for 16 rows of 64 bytes during its lifetime.
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
        if (!may_use_tiles()) return;
        memory_fence();
        _tile_storeconfig(&before);  // the matrix library may rely on its own configuration
        memory_fence();
        _tile_loadconfig(&kOwn);
    }
    ~TileSetup() {
        memory_fence();
        if (before.palette != 0) _tile_loadconfig(&before);
        else if (may_use_tiles()) _tile_release();
    }
};

#else

struct TileSetup {};

#endif

}  // namespace
