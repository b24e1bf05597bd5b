// Dropout from a counter: Threefry-4x32 with 12 rounds (Salmon et al. 2011, Parallel random numbers: as easy as 1, 2, 3)
//
// Elements of a row come in blocks of 128; lane l of a block takes the counter (block * 16 + l, draw), and its four
// words give, low half first, the 16 bits of elements l, 16 + l, ..., 112 + l. backends/torch/dropout.py has
// the same in Torch.
#pragma once

#include <vector>

#include "simd.hpp"

namespace {

constexpr int64_t kBlock = 128, kCounters = 16;

template <int kLeft> words rotated(words x) { return x << kLeft | x >> (32 - kLeft); }

template <int kFirst, int kSecond> void mix(words& a, words& b, words& c, words& d) {
    a += b, b = rotated<kFirst>(b) ^ a;
    c += d, d = rotated<kSecond>(d) ^ c;
}

inline void threefry(const uint32_t key[4], uint32_t first, uint32_t draw, words out[4]) {
    const uint32_t keys[5] = {key[0], key[1], key[2], key[3], 0x1BD11BDAu ^ key[0] ^ key[1] ^ key[2] ^ key[3]};
    const words none = {};
    words a = read<words>(kLane) + first + keys[0], b = none + draw + keys[1], c = none + keys[2], d = none + keys[3];
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

// One bit an element, 1 where it is kept: 16 bytes a block, the lowest bit of the first byte for its first element.
void kept_bits(int64_t rows, int64_t d, const int64_t* lengths, const int64_t* widths, const uint32_t* keys,
               int64_t draw, int64_t drop_below, uint16_t* kept) {
    const uint32_t below = uint32_t(drop_below);
    lane_bits* const to = (lane_bits*)kept;
    for_each_block(rows, d, widths, [=](int64_t block, int64_t row, int64_t within) {
        const int64_t real = lengths[row] * d - within;  // padding behind a row's tokens is kept
        for (int64_t lane = 0; lane < kCounters; lane += kLanes) {
            words bits[4];
            threefry(keys + 4 * row, uint32_t(within / kBlock * kCounters + lane), uint32_t(draw), bits);
            for (int64_t part = 0; part < kBlock / kCounters; ++part) {
                const words number = part % 2 == 0 ? bits[part / 2] & 0xffffu : bits[part / 2] >> 16;
                const int64_t element = part * kCounters + lane;
                to[(block * kBlock + element) / kLanes] =
                    packed((lane_mask)(number >= below) | lanes_between(real - element, kLanes));
            }
        }
    });
}

// Calls use(first element, elements, kept) for up to kLanes elements at a time of every row.
template <class Use>
void for_each_lanes(int64_t rows, int64_t d, const int64_t* starts, const int64_t* widths, const uint16_t* kept,
                    Use use) {
    for_each_block(rows, d, widths, [=](int64_t block, int64_t row, int64_t within) {
        const int64_t left = widths[row] * d - within, first = starts[row] * d + within;
        const lane_bits* own = (const lane_bits*)kept + block * (kBlock / kLanes);
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

}  // namespace
