// What stands between the matrix products of a decoder layer, each in one pass over memory.
// eager.py has the same functions in torch and says what each computes. T is the compute dtype, float or (with HALF
// defined) bfloat16 as the upper 16 bits of one; sums and the residual stream are float. A pointer may be null where torch's
// twin takes None. Weight gradients are summed a thread each, into [threads, d].

#include <omp.h>
#include <stdint.h>
#include <string.h>

typedef uint16_t half;
#ifdef HALF
typedef half T;
#else
typedef float T;
#endif

static inline float load(float x) { return x; }
static inline float load(half x) {
    uint32_t bits = (uint32_t)x << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}
static inline void store(float *out, float x) { *out = x; }
static inline void store(half *out, float x) {  // round to nearest even; NaN stays NaN
    uint32_t bits;
    memcpy(&bits, &x, 4);
    *out = x != x ? 0x7fc0 : (half)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// Of x <= 0, relative error 2e-7 (the polynomial is Cephes'): libm's does not vectorise everywhere. One comparison,
// because with two the compiler makes a lane of its own of denormals, which cost the processor 6 times as long.
static inline float exponential(float x) {
    x = x < -87.0f ? -87.0f : x;
    float n = (x * 1.44269504f + 12582912.0f) - 12582912.0f;  // to the nearest integer
    float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    int32_t bits = ((int32_t)n + 127) << 23;
    float scale;
    memcpy(&scale, &bits, 4);
    return p * scale;
}
static inline float sigmoid(float x) {
    float e = exponential(-__builtin_fabsf(x));
    return (x < 0 ? e : 1.0f) / (1.0f + e);
}
static inline float inverse_root(float x) { return 1.0f / __builtin_sqrtf(x); }

#define ROWS _Pragma("omp parallel for num_threads(threads) schedule(static)")
#define VECTOR _Pragma("omp simd")
#define TEXT(pragma) _Pragma(#pragma)
#define SUM(...) TEXT(omp simd reduction(+ : __VA_ARGS__))

extern "C" {

void add_norm(long rows, long d, const float *x, const T *branch, const float *gain, float eps,
                     float *sum, T *out, int threads) {
    ROWS for (long row = 0; row < rows; row++) {
        const float *xs = x + row * d;
        const T *bs = branch ? branch + row * d : nullptr;
        float *hs = sum ? sum + row * d : nullptr;
        T *ys = out + row * d;
        float square = 0;
        if (bs) SUM(square) for (long i = 0; i < d; i++) {
            float h = xs[i] + load(bs[i]);
            square += h * h;
        } else SUM(square) for (long i = 0; i < d; i++) square += xs[i] * xs[i];
        float scale = inverse_root(square / d + eps);
        if (bs && hs) VECTOR for (long i = 0; i < d; i++) hs[i] = xs[i] + load(bs[i]);
        if (bs) VECTOR for (long i = 0; i < d; i++) store(ys + i, (xs[i] + load(bs[i])) * scale * gain[i]);
        else VECTOR for (long i = 0; i < d; i++) store(ys + i, xs[i] * scale * gain[i]);
    }
}

void norm_backward(long rows, long d, const float *x, const T *branch, const float *gain, float eps,
                          const T *upstream, const float *residual, float *out, T *rounded, float *by_gain,
                          int threads) {
#pragma omp parallel num_threads(threads)
    {
        float *sums = by_gain + omp_get_thread_num() * d;
#pragma omp for schedule(static)
        for (long row = 0; row < rows; row++) {
            const float *xs = x + row * d, *rs = residual + row * d;
            const T *bs = branch ? branch + row * d : nullptr, *gs = upstream + row * d;
            float *ys = out + row * d, square = 0, dot = 0;
            if (bs) SUM(square, dot) for (long i = 0; i < d; i++) {
                float h = xs[i] + load(bs[i]);
                square += h * h;
                dot += load(gs[i]) * gain[i] * h;
            } else SUM(square, dot) for (long i = 0; i < d; i++) {
                square += xs[i] * xs[i];
                dot += load(gs[i]) * gain[i] * xs[i];
            }
            float scale = inverse_root(square / d + eps);
            float along = dot * scale * scale * scale / d;
            VECTOR for (long i = 0; i < d; i++) {
                float h = bs ? xs[i] + load(bs[i]) : xs[i], g = load(gs[i]);
                sums[i] += g * h * scale;
                ys[i] = rs[i] + g * gain[i] * scale - h * along;
            }
            if (rounded) VECTOR for (long i = 0; i < d; i++) store(rounded + row * d + i, ys[i]);
        }
    }
}

// Token-major (tokens, heads, d) to head-major: a text of n tokens that starts at s is (heads, n, d) at s heads d.
void to_heads(long tokens, long heads, long d, const T *in, long stride, const int64_t *start,
                     const int64_t *length, const float *gain, float eps, const float *cosine,
                     const float *sine, T *out, int threads) {
    long m = d / 2;
    ROWS for (long t = 0; t < tokens; t++) for (long head = 0; head < heads; head++) {
        const T *xs = in + t * stride + head * d;
        T *ys = out + (start[t] * heads + head * length[t] + t - start[t]) * d;
        if (!cosine) {
            memcpy(ys, xs, d * sizeof(T));
            continue;
        }
        const float *c = cosine + t * d, *s = sine + t * d;
        float scale = 1;
        if (gain) {
            float square = 0;
            SUM(square) for (long i = 0; i < d; i++) square += load(xs[i]) * load(xs[i]);
            scale = inverse_root(square / d + eps);
        }
        VECTOR for (long i = 0; i < m; i++) {
            float a = load(xs[i]) * scale * (gain ? gain[i] : 1), b = load(xs[i + m]) * scale * (gain ? gain[i + m] : 1);
            store(ys + i, a * c[i] - b * s[i]);
            store(ys + i + m, b * c[i] + a * s[i]);
        }
    }
}

void from_heads(long tokens, long heads, long d, const T *upstream, const int64_t *start,
                       const int64_t *length, const T *in, long stride, const float *gain, float eps,
                       const float *cosine, const float *sine, T *out, long out_stride, float *by_gain,
                       int threads) {
    long m = d / 2;
#pragma omp parallel num_threads(threads)
    {
        float *sums = by_gain ? by_gain + omp_get_thread_num() * d : nullptr;
#pragma omp for schedule(static)
        for (long t = 0; t < tokens; t++) for (long head = 0; head < heads; head++) {
            const T *gs = upstream + (start[t] * heads + head * length[t] + t - start[t]) * d;
            T *ys = out + t * out_stride + head * d;
            if (!cosine) {
                memcpy(ys, gs, d * sizeof(T));
                continue;
            }
            const float *c = cosine + t * d, *s = sine + t * d;
            if (!gain) {
                VECTOR for (long i = 0; i < m; i++) {
                    float g = load(gs[i]), h = load(gs[i + m]);
                    store(ys + i, g * c[i] + h * s[i]);
                    store(ys + i + m, h * c[i] - g * s[i]);
                }
                continue;
            }
            const T *xs = in + t * stride + head * d;
            float square = 0, dot = 0;
            SUM(square, dot) for (long i = 0; i < m; i++) {
                float g = load(gs[i]), h = load(gs[i + m]), a = load(xs[i]), b = load(xs[i + m]);
                square += a * a + b * b;
                dot += (g * c[i] + h * s[i]) * gain[i] * a + (h * c[i] - g * s[i]) * gain[i + m] * b;
            }
            float scale = inverse_root(square / d + eps), along = dot * scale * scale * scale / d;
            VECTOR for (long i = 0; i < m; i++) {
                float g = load(gs[i]), h = load(gs[i + m]), a = load(xs[i]), b = load(xs[i + m]);
                float u = g * c[i] + h * s[i], v = h * c[i] - g * s[i];
                sums[i] += u * a * scale;
                sums[i + m] += v * b * scale;
                store(ys + i, u * gain[i] * scale - a * along);
                store(ys + i + m, v * gain[i + m] * scale - b * along);
            }
        }
    }
}

void swiglu(long rows, long f, const T *opened, T *out, int threads) {
    ROWS for (long row = 0; row < rows; row++) {
        const T *gs = opened + row * 2 * f, *us = gs + f;
        T *ys = out + row * f;
        VECTOR for (long i = 0; i < f; i++) {
            float g = load(gs[i]);
            store(ys + i, g * sigmoid(g) * load(us[i]));
        }
    }
}

void swiglu_backward(long rows, long f, const T *opened, const T *upstream, T *by_opened, T *out,
                            int threads) {
    ROWS for (long row = 0; row < rows; row++) {
        const T *gs = opened + row * 2 * f, *us = gs + f, *ds = upstream + row * f;
        T *by_gate = by_opened + row * 2 * f, *by_up = by_gate + f, *ys = out + row * f;
        VECTOR for (long i = 0; i < f; i++) {
            float g = load(gs[i]), u = load(us[i]), d = load(ds[i]), s = sigmoid(g);
            store(by_gate + i, d * u * s * (1 + g * (1 - s)));
            store(by_up + i, d * g * s);
            store(ys + i, g * s * u);
        }
    }
}

void softmax(long rows, long n, T *scores, float scale, int threads) {
    ROWS for (long row = 0; row < rows; row++) {
        T *xs = scores + row * n;
        float top = load(xs[0]), sum = 0, raised[LONGEST];  // native.LONGEST
        TEXT(omp simd reduction(max : top)) for (long i = 0; i < n; i++) {
            float x = load(xs[i]);
            top = top < x ? x : top;
        }
        SUM(sum) for (long i = 0; i < n; i++) {
            raised[i] = exponential((load(xs[i]) - top) * scale);
            sum += raised[i];
        }
        float over = 1 / sum;
        VECTOR for (long i = 0; i < n; i++) store(xs + i, raised[i] * over);
    }
}

void softmax_backward(long rows, long n, const T *weights, T *gradient, float scale, int threads) {
    ROWS for (long row = 0; row < rows; row++) {
        const T *ps = weights + row * n;
        T *gs = gradient + row * n;
        float dot = 0;
        SUM(dot) for (long i = 0; i < n; i++) dot += load(ps[i]) * load(gs[i]);
        VECTOR for (long i = 0; i < n; i++) store(gs + i, load(ps[i]) * (load(gs[i]) - dot) * scale);
    }
}

}  // extern "C"
