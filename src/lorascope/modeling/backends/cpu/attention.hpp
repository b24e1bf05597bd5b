// Causal attention inside each row of a packed micro-batch. A row may have a parent, which holds its prefix. A task is one
// row without a parent, its children, and one key-value head. Only the scores of a block of queries exist at once, so
// memory is linear in the length. The backward pass recomputes the probabilities from the log-sum-exp of the forward pass
// (Dao et al. 2022, arXiv 2205.14135, section 3.1).
#pragma once

#include <limits>
#include <tuple>
#include <type_traits>
#include <utility>

#include "attention_matmul.hpp"
#include "simd.hpp"

namespace {

// The arguments of an attention call; ctypes_structs.py has the same fields in the same order. Token t of head h begins at
// pointer + t * stride + h * d.
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
    // Most keys of a task: a row, or a row and its longest child.
    int64_t longest(int64_t root) const {
        int64_t most = 0;
        for (int64_t row = root + 1; row < rows; ++row)
            if (parents[row] == root) most = std::max(most, lengths[row]);
        return lengths[root] + most;
    }
};

// Reads one token of one head, rotated by its rotary angle (Su et al. 2021, arXiv 2104.09864, equation 34; the halves of
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

// Writes the gradient of one token of one head, rotated back.
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

// Prefetches one head of a token: heads of neighbouring tokens are too far apart for the hardware prefetcher.
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

// Writes the probabilities of query i of a block, not yet divided by their sum, and zero outside of its keys [first, stop).
// Returns their sum and the log-sum-exp of the scores.
template <class C, class Products>
std::pair<C, C> softmax(Products& x, const Block& b, int64_t i, int64_t first, int64_t stop) {
    using V = lanes_t<C>;
    const C* row = x.scores + i * x.padded;
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

// The backward pass's values of one query; it attends to no key if stop is 0.
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
    const int64_t padded = x.padded, low = b.low, high = b.high;
    const C *scores = x.scores + i * padded, *dscores = x.dscores + i * padded;
    const auto sink = x.pair_sink(i);
    for (int64_t j = low; j < high; j += kLanes) {
        lanes_t<C> p = load(scores + j), ds = load(dscores + j);
        lanes_t<C> next_p = load(scores + padded + j), next_ds = load(dscores + padded + j);
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

}  // namespace
