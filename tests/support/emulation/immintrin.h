// The AVX-512 and AMX instructions that the kernels use, in portable code with the processor's rounding.
//
// Found before the compiler's own header of this name, with the macros __AVX512F__ and so on defined by hand, it lets the
// unchanged kernels run on a processor without these instructions: every index, tail, mask and order of sums is the same.
// Numbers below the smallest normal float are not flushed to 0, as the processor does in products. For tests only.
#pragma once

#include <unistd.h>

#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#define EMULATED(type, name, bytes) typedef type name __attribute__((vector_size(bytes), may_alias))
EMULATED(float, __m512, 64);
EMULATED(long long, __m512i, 64);
EMULATED(uint16_t, __m512bh, 64);
EMULATED(long long, __m256i, 32);
EMULATED(uint16_t, __m256bh, 32);
EMULATED(uint32_t, emulated_words, 64);
EMULATED(int32_t, emulated_ints, 64);
EMULATED(uint16_t, emulated_halves, 32);
#undef EMULATED
typedef uint16_t __mmask16;
typedef uint32_t __mmask32;

inline void emulated_check(bool holds, const char* what) {
    if (holds) return;
    std::fprintf(stderr, "emulated instruction: %s\n", what);
    std::abort();
}

// --- loads, stores and moves

inline __m512i _mm512_setzero_si512() { return __m512i{}; }
inline __m512i _mm512_set1_epi32(int x) { return (__m512i)(emulated_ints{} + x); }
inline __m512i _mm512_cvtepu16_epi32(__m256i x) { return (__m512i)__builtin_convertvector((emulated_halves)x, emulated_words); }

inline __mmask16 _mm512_cmplt_epi32_mask(__m512i a, __m512i b) {
    const emulated_ints less = (emulated_ints)a < (emulated_ints)b;
    __mmask16 bits = 0;
    for (int l = 0; l < 16; ++l) bits |= __mmask16((less[l] & 1) << l);
    return bits;
}

inline __m512i _mm512_permutex2var_epi32(__m512i a, __m512i index, __m512i b) {
    return (__m512i)__builtin_shuffle((emulated_words)a, (emulated_words)b, (emulated_words)index);
}

// Memory whose bit is 0 is not touched.
template <class V, class N> V emulated_masked_load(uint32_t mask, const void* from) {
    N numbers[sizeof(V) / sizeof(N)] = {};
    for (size_t l = 0; l < sizeof(V) / sizeof(N); ++l)
        if (mask >> l & 1) std::memcpy(numbers + l, (const char*)from + l * sizeof(N), sizeof(N));
    V loaded;
    std::memcpy(&loaded, numbers, sizeof(V));
    return loaded;
}
inline __m512i _mm512_maskz_loadu_epi16(__mmask32 mask, const void* from) {
    return emulated_masked_load<__m512i, uint16_t>(mask, from);
}
inline __m256i _mm256_maskz_loadu_epi16(__mmask16 mask, const void* from) {
    return emulated_masked_load<__m256i, uint16_t>(mask, from);
}
inline __m512 _mm512_maskz_loadu_ps(__mmask16 mask, const void* from) {
    return emulated_masked_load<__m512, float>(mask, from);
}

inline void _mm512_stream_si512(__m512i* to, __m512i x) {
    emulated_check((uintptr_t)to % 64 == 0, "a streaming store must begin a cache line");
    std::memcpy((void*)to, &x, sizeof x);
}
inline void _mm_sfence() {}

// --- arithmetic

// 1 / x to 14 bits.
inline __m512 _mm512_rcp14_ps(__m512 x) { return (__m512)((emulated_words)(1 / x) & 0xfffffc00u); }

// To the nearest, ties to even.
inline emulated_words emulated_rounded(__m512 x) {
    const emulated_words bits = (emulated_words)x;
    return x == x ? (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16 : (bits >> 16) | 0x40u;
}
inline __m256bh _mm512_cvtneps_pbh(__m512 x) { return (__m256bh)__builtin_convertvector(emulated_rounded(x), emulated_halves); }
inline __m512bh _mm512_cvtne2ps_pbh(__m512 high, __m512 low) {
    const __m256bh parts[2] = {_mm512_cvtneps_pbh(low), _mm512_cvtneps_pbh(high)};
    __m512bh both;
    std::memcpy(&both, parts, sizeof both);
    return both;
}

inline __m512 emulated_low(emulated_words pairs) { return (__m512)(pairs << 16); }
inline __m512 emulated_high(emulated_words pairs) { return (__m512)(pairs & 0xffff0000u); }

// The upper of two neighbours first. A product of two bfloat16 is exact in a float, so that each sum is rounded once, fused
// or not.
inline __m512 _mm512_dpbf16_ps(__m512 sum, __m512bh a, __m512bh b) {
    const emulated_words left = (emulated_words)a, right = (emulated_words)b;
    return sum + emulated_high(left) * emulated_high(right) + emulated_low(left) * emulated_low(right);
}

// --- tiles: 8 registers of 16 rows of 64 bytes, a set for each thread

struct emulated_tiles {
    struct alignas(64) config {
        uint8_t palette, start_row, reserved[14];
        uint16_t column_bytes[16];
        uint8_t rows[16];
    } set = {};
    emulated_words row[8][16];
};
inline emulated_tiles& emulated_unit() {
    static thread_local emulated_tiles unit;
    return unit;
}
inline emulated_words* emulated_tile(int tile) {
    emulated_tiles& unit = emulated_unit();
    emulated_check(unit.set.palette == 1, "a tile is used where none is configured");
    emulated_check(unit.set.rows[tile] == 16 && unit.set.column_bytes[tile] == 64, "a tile has another shape than is emulated");
    return unit.row[tile];
}

inline void _tile_storeconfig(void* to) { std::memcpy(to, &emulated_unit().set, 64); }
inline void _tile_loadconfig(const void* from) { std::memcpy((void*)&emulated_unit().set, from, 64); }
inline void _tile_release() { emulated_unit().set = {}; }
inline void _tile_zero(int tile) { std::memset((void*)emulated_tile(tile), 0, 16 * 64); }
inline void _tile_loadd(int tile, const void* from, int64_t stride) {
    emulated_words* to = emulated_tile(tile);
    for (int r = 0; r < 16; ++r) std::memcpy((void*)(to + r), (const char*)from + r * stride, 64);
}
inline void _tile_stream_loadd(int tile, const void* from, int64_t stride) { _tile_loadd(tile, from, stride); }
inline void _tile_stored(int tile, void* to, int64_t stride) {
    const emulated_words* from = emulated_tile(tile);
    for (int r = 0; r < 16; ++r) std::memcpy((char*)to + r * stride, from + r, 64);
}
// Lower and upper neighbours are summed over the whole depth apart from each other, and then added to the tile.
inline void _tile_dpbf16ps(int to, int a, int b) {
    emulated_words *sums = emulated_tile(to), *left = emulated_tile(a), *right = emulated_tile(b);
    for (int r = 0; r < 16; ++r) {
        __m512 lower = {}, upper = {};
        for (int pair = 0; pair < 16; ++pair) {
            const emulated_words one = emulated_words{} + left[r][pair];
            lower += emulated_low(one) * emulated_low(right[pair]);
            upper += emulated_high(one) * emulated_high(right[pair]);
        }
        sums[r] = (emulated_words)((__m512)sums[r] + (lower + upper));
    }
}

// Linux grants the tile unit.
#define syscall(...) 0L
