// Norms, the activation of gated MLPs, and cross entropy.
#pragma once

#include <limits>
#include <utility>
#include <vector>

#include "simd.hpp"

namespace {

// Root mean square norm (Zhang and Sennrich 2019, arXiv 1910.07467, equation 4), weight frozen

// X is float if a bfloat16 model has a residual stream of floats. The backward pass then needs x rounded only, `kept`.
template <class T, class X>
void norm_rows(int64_t n, int64_t d, const X* x, const T* weight, double eps, T* y, T* kept, compute_t<T>* inverse) {
    using C = compute_t<T>;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; ++i) {
        const X* row = x + i * d;
        lanes_t<C> squares = {};
        for (int64_t j = 0; j < d; j += kLanes) {
            const lanes_t<C> value = load(row + j, d - j);
            squares += value * value;
        }
        const C factor = C(1) / std::sqrt(sum_of<C>(squares) / C(d) + C(eps));
        inverse[i] = factor;
        for (int64_t j = 0; j < d; j += kLanes) {
            const lanes_t<C> value = load(row + j, d - j);
            store(y + i * d + j, value * factor * load(weight + j, d - j), d - j);
            if (kept != nullptr) store(kept + i * d + j, value, d - j);
        }
    }
}

template <class T>
void rms_norm_forward(int64_t n, int64_t d, const T* x, const T* weight, double eps, T* y, compute_t<T>* inverse) {
    norm_rows(n, d, x, weight, eps, y, (T*)nullptr, inverse);
}
void residual_norm_forward(int64_t n, int64_t d, const float* x, const bfloat16* weight, double eps, bfloat16* y,
                           bfloat16* kept, float* inverse) {
    norm_rows(n, d, x, weight, eps, y, kept, inverse);
}

// put(place, gradients of x from there on, their number)
template <class T, class Put>
void norm_gradients(int64_t n, int64_t d, const T* x, const T* weight, const compute_t<T>* inverse, const T* dy, Put put) {
    using C = compute_t<T>;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; ++i) {
        const T *row = x + i * d, *grad = dy + i * d;
        lanes_t<C> dot = {};
        for (int64_t j = 0; j < d; j += kLanes)
            dot += load(row + j, d - j) * load(weight + j, d - j) * load(grad + j, d - j);
        const C factor = inverse[i], mean = sum_of<C>(dot) / C(d) * factor * factor;
        for (int64_t j = 0; j < d; j += kLanes)
            put(i * d + j, factor * (load(weight + j, d - j) * load(grad + j, d - j) - load(row + j, d - j) * mean), d - j);
    }
}

template <class T>
void rms_norm_backward(int64_t n, int64_t d, const T* x, const T* weight, const compute_t<T>* inverse, const T* dy,
                       T* dx) {
    norm_gradients(n, d, x, weight, inverse, dy, [&](int64_t at, auto dx_lanes, int64_t left) {
        store(dx + at, dx_lanes, left);
    });
}
// Adds to dx.
void residual_norm_backward(int64_t n, int64_t d, const bfloat16* x, const bfloat16* weight, const float* inverse,
                            const bfloat16* dy, float* dx) {
    norm_gradients(n, d, x, weight, inverse, dy, [&](int64_t at, floats dx_lanes, int64_t left) {
        store(dx + at, load(dx + at, left) + dx_lanes, left);
    });
}

// ---------------------------------------------------------------------------------------------------------------------
// SiLU(gate) * up, the activation of a gated MLP (Shazeer 2020, arXiv 2002.05202)

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

// Of gate and up, from that of the result.
template <class V> std::pair<V, V> silu_mul_gradients(V gate, V up, V grad) {
    const V s = sigmoid(gate);
    return {grad * up * s * (1 + gate * (1 - s)), grad * gate * s};
}

template <class T>
void silu_mul_backward(int64_t n, int64_t d, const T* gate, const T* up, const T* dy, T* dgate, T* dup) {
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; ++i) {
        for (int64_t j = i * d, left = d; left > 0; j += kLanes, left -= kLanes) {
            const auto [dg, du] = silu_mul_gradients(load(gate + j, left), load(up + j, left), load(dy + j, left));
            store(dgate + j, dg, left), store(dup + j, du, left);
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

}  // namespace
