/* The forward pass of TiRex (Auer et al., 2025, arXiv 2505.23719) in float32, for one CPU.

   What makes it fast, in order of effect:
     - Leading tokens without any bar are the same for every window, so the recurrent states behind k of them are
       computed once per checkpoint (`prefix`), and only tokens that hold bars are run.
     - Weights are packed once, in panels that a tile of rows streams through; every panel is used for all tokens.
     - Each head's input gates, scan and group norm are one task: the recurrent matrix is block-diagonal, so a head
       needs nothing from the others until the block's feed-forward part.
     - After the last scan only the last token matters.

   A row's result does not depend on the rows beside it, to the bit: every product is accumulated over k in one
   order, whatever the size of its tile, and no reduction runs across rows. Sections of one pass, or whole chunks of
   windows, are handed out to a small team of threads; who does which changes no digit either.

   Compiled by build.py for the machine it runs on; nothing here but vector extensions of GCC and Clang. */

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__AVX512F__)
#define LANES 16
#define ROWS2 12 /* rows of a tile two vectors wide; 24 accumulators of 32 registers */
#define ROWS4 6
#define ISA "avx512"
#elif defined(__AVX2__) && defined(__FMA__)
#define LANES 8
#define ROWS2 6
#define ROWS4 3
#define ISA "avx2"
#elif defined(__ARM_NEON)
#define LANES 4
#define ROWS2 12
#define ROWS4 6
#define ISA "neon"
#else
#define LANES 4
#define ROWS2 6
#define ROWS4 3
#define ISA "generic"
#endif

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t ivec __attribute__((vector_size(4 * LANES)));

#define STRIDE(n) ((n) + 16) /* rows a power of two apart would share cache sets */
#define CHUNK_TOKENS 256     /* tokens that go through the network together; their activations stay in the L2 cache */
#define SPINS 4000           /* polls before an idle helper sleeps: some 50 to 100 microseconds */

/* ---- elementwise functions, to about one unit in the last place ---------------------------------------------- */

static inline vec splat(float x) {
  vec v = {0};
  return v + x;
}
static inline vec pick(ivec mask, vec yes, vec no) { return (vec)((mask & (ivec)yes) | (~mask & (ivec)no)); }
static inline vec vmin(vec a, vec b) { return pick(a < b, a, b); }
static inline vec vmax(vec a, vec b) { return pick(a > b, a, b); }
static inline vec load(const float *p) { return *(const vec *)p; }
static inline void store(float *p, vec v) { *(vec *)p = v; }

static inline vec vexp(vec x) {
  /* exp(n ln 2 + r) = 2^n exp(r); adding 1.5 * 2^23 leaves n in the low bits of the sum. */
  x = vmin(vmax(x, splat(-87.3f)), splat(88.3f));
  vec shifted = x * 1.44269504f + 12582912.0f, n = shifted - 12582912.0f;
  vec r = x - n * 0.693359375f + n * 2.12194440e-4f;
  vec p = splat(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  return (vec)((ivec)p + (((ivec)shifted - (ivec)splat(12582912.0f)) << 23));
}
static inline vec vsigmoid(vec x) { return 1.0f / (1.0f + vexp(-x)); }
static inline vec vtanh(vec x) {
  vec s = x * x, p = splat(-5.70498872745e-3f);
  p = p * s + 2.06390887954e-2f;
  p = p * s - 5.37397155531e-2f;
  p = p * s + 1.33314422036e-1f;
  p = p * s - 3.33332819422e-1f;
  return pick(s < splat(0.390625f), p * s * x + x, 1.0f - 2.0f / (vexp(x + x) + 1.0f));
}
static inline vec vlogsigmoid(vec x) {
  /* min(x, 0) - log1p(u), u = exp(-|x|); log1p(u) = 2 artanh(u / (2 + u)), whose argument is at most 1/3. */
  vec u = vexp(vmin(x, -x)), a = u / (2.0f + u), s = a * a;
  vec p = splat(1.0f / 17);
  p = p * s + 1.0f / 15;
  p = p * s + 1.0f / 13;
  p = p * s + 1.0f / 11;
  p = p * s + 1.0f / 9;
  p = p * s + 1.0f / 7;
  p = p * s + 1.0f / 5;
  p = p * s + 1.0f / 3;
  return vmin(x, splat(0.0f)) - 2.0f * (p * s * a + a);
}
static inline float sum(vec v) {
  float total = 0;
  for (int i = 0; i < LANES; i++) total += v[i];
  return total;
}

/* ---- tiles of matrix products -------------------------------------------------------------------------------- */

/* accumulators += rows of a (row stride lda) times a panel of k x (nv * LANES) weights */
typedef void kernel(const float *a, long lda, const float *panel, long k, vec *accumulators);

#define KERNEL(M, NV)                                                                        \
  static void multiply_##M##_##NV(const float *a, long lda, const float *b, long k, vec *out) { \
    vec c[M][NV];                                                                            \
    _Pragma("GCC unroll 16") for (int i = 0; i < M; i++)                                     \
        _Pragma("GCC unroll 4") for (int j = 0; j < NV; j++) c[i][j] = out[i * NV + j];      \
    for (long l = 0; l < k; l++, b += NV * LANES) {                                          \
      vec w[NV];                                                                             \
      _Pragma("GCC unroll 4") for (int j = 0; j < NV; j++) w[j] = load(b + j * LANES);       \
      _Pragma("GCC unroll 16") for (int i = 0; i < M; i++) {                                 \
        vec x = splat(a[i * lda + l]);                                                       \
        _Pragma("GCC unroll 4") for (int j = 0; j < NV; j++) c[i][j] += x * w[j];            \
      }                                                                                      \
    }                                                                                        \
    _Pragma("GCC unroll 16") for (int i = 0; i < M; i++)                                     \
        _Pragma("GCC unroll 4") for (int j = 0; j < NV; j++) out[i * NV + j] = c[i][j];      \
  }

KERNEL(1, 2) KERNEL(2, 2) KERNEL(3, 2) KERNEL(4, 2) KERNEL(5, 2) KERNEL(6, 2)
KERNEL(1, 4) KERNEL(2, 4) KERNEL(3, 4)
#if ROWS2 == 12
KERNEL(7, 2) KERNEL(8, 2) KERNEL(9, 2) KERNEL(10, 2) KERNEL(11, 2) KERNEL(12, 2)
KERNEL(4, 4) KERNEL(5, 4) KERNEL(6, 4)
#endif

static kernel *const MULTIPLY2[] = {0, multiply_1_2, multiply_2_2, multiply_3_2, multiply_4_2, multiply_5_2, multiply_6_2,
#if ROWS2 == 12
  multiply_7_2, multiply_8_2, multiply_9_2, multiply_10_2, multiply_11_2, multiply_12_2,
#endif
};
static kernel *const MULTIPLY4[] = {0, multiply_1_4, multiply_2_4, multiply_3_4,
#if ROWS4 == 6
  multiply_4_4, multiply_5_4, multiply_6_4,
#endif
};

/* Rows of each of the equal tiles that `rows` are cut into; the last one may be smaller. */
static int tile_rows(int rows, int most) {
  int tiles = (rows + most - 1) / most;
  return tiles ? (rows + tiles - 1) / tiles : 1;
}

/* ---- the network --------------------------------------------------------------------------------------------- */

enum { IFZO = 4 }; /* gates of the cell: input, forget, cell input, output */
enum { Y, C, N, M, STATES };

typedef struct {
  int width, heads, blocks, patch, hidden, up, outputs, tokens; /* tokens: patches in the longest context */
} dimensions;

typedef struct {
  float *norm, *gates, *recurrent, *bias, *group, *ffn_norm, *gate_up, *down;
} block_weights;

typedef struct team team;

typedef struct {
  dimensions d;
  int head_width, units, output_stride;
  float *in_hidden, *in_hidden_bias, *in_out, *in_residual, *in_bias;
  float *out_norm, *out_hidden, *out_hidden_bias, *out_out, *out_residual, *out_bias;
  block_weights *block;
  float *prefix; /* [tokens][blocks][STATES][width]: states behind so many empty tokens */
  team *team;
  int failed;
} network;

/* What a chunk of windows needs while it passes through. */
typedef struct {
  float *input, *x, *mixed, *up, *state[STATES], *last; /* mixed: x behind the scan, x: behind the feed-forward part */
  int *offset, *active, *order;
} workspace;

/* What one thread needs for itself. */
typedef struct {
  float *normed, *gates;
  vec *accumulators;
  int normed_for;
} scratch;

typedef struct {
  const network *net;
  workspace *w;
  scratch *scratch; /* one for each thread */
  const int *counts;
  int rows, steps, tokens, block, phase;
  float *capture, *out;
} pass;

typedef void section(pass *p, int thread, int task);

static void *aligned(size_t floats) {
  void *memory = NULL;
  size_t bytes = (floats * sizeof(float) + 63) / 64 * 64;
  return posix_memalign(&memory, 64, bytes ? bytes : 64) ? NULL : memory;
}

static float *owned(network *net, size_t floats) {
  float *memory = net->failed ? NULL : aligned(floats);
  if (!memory) net->failed = 1;
  return memory;
}

/* ---- the team: persistent helpers that take tasks of a section from one counter ------------------------------- */

typedef struct {
  team *team;
  int thread;
} helper;

struct team {
  int size;
  atomic_ullong ticket; /* generation (32 bits), tasks (16), next task (16): one word, so that none is seen stale */
  atomic_int done, sleepers, stop;
  section *run;
  pass *pass;
  pthread_mutex_t lock;
  pthread_cond_t wake;
  pthread_t *threads;
  helper *helpers;
};

static inline void relax(void) {
#if defined(__SSE__)
  _mm_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

static inline int tasks_left(unsigned long long ticket) { return (ticket & 0xffff) < ((ticket >> 16) & 0xffff); }

static void take_tasks(team *t, int thread) {
  while (tasks_left(atomic_load(&t->ticket))) {
    unsigned long long mine = atomic_fetch_add(&t->ticket, 1);
    if (!tasks_left(mine)) return;
    /* A task that is taken and not done keeps its section alive, so run and pass are the ones it belongs to. */
    t->run(t->pass, thread, (int)(mine & 0xffff));
    atomic_fetch_add(&t->done, 1);
  }
}

static unsigned flush_denormals(void) {
#if defined(__SSE__)
  /* Gates saturate, and arithmetic on denormal numbers is many times slower than on zeros. */
  unsigned before = _mm_getcsr();
  _mm_setcsr(before | 0x8040);
  return before;
#else
  return 0;
#endif
}

static void restore_denormals(unsigned before) {
#if defined(__SSE__)
  _mm_setcsr(before);
#else
  (void)before;
#endif
}

static void *help(void *argument) {
  helper *self = argument;
  team *t = self->team;
  flush_denormals();
  while (!atomic_load(&t->stop)) {
    int spins = 0;
    while (!tasks_left(atomic_load(&t->ticket)) && !atomic_load(&t->stop) && spins < SPINS) spins++, relax();
    if (spins == SPINS) {
      pthread_mutex_lock(&t->lock);
      atomic_fetch_add(&t->sleepers, 1);
      while (!tasks_left(atomic_load(&t->ticket)) && !atomic_load(&t->stop)) pthread_cond_wait(&t->wake, &t->lock);
      atomic_fetch_sub(&t->sleepers, 1);
      pthread_mutex_unlock(&t->lock);
    }
    take_tasks(t, self->thread);
  }
  return NULL;
}

static team *make_team(int size) {
  team *t = calloc(1, sizeof *t);
  if (!t) return NULL;
  t->threads = calloc(size, sizeof *t->threads);
  t->helpers = calloc(size, sizeof *t->helpers);
  pthread_mutex_init(&t->lock, NULL);
  pthread_cond_init(&t->wake, NULL);
  t->size = 1;
  for (int i = 1; t->threads && t->helpers && i < size; i++) {
    t->helpers[i] = (helper){t, i};
    /* Fewer helpers than asked for are slower, not wrong. */
    if (pthread_create(&t->threads[i], NULL, help, &t->helpers[i])) break;
    t->size++;
  }
  return t;
}

static void wake_helpers(team *t) {
  pthread_mutex_lock(&t->lock);
  pthread_cond_broadcast(&t->wake);
  pthread_mutex_unlock(&t->lock);
}

static void end_team(team *t) {
  if (!t) return;
  atomic_store(&t->stop, 1);
  wake_helpers(t);
  for (int i = 1; i < t->size; i++) pthread_join(t->threads[i], NULL);
  pthread_cond_destroy(&t->wake);
  pthread_mutex_destroy(&t->lock);
  free(t->threads);
  free(t->helpers);
  free(t);
}

/* Run all tasks of a section. The caller works too, and alone if the helpers are slow to come. */
static void run_section(team *t, section *run, pass *p, int tasks) {
  if (!t || t->size == 1 || tasks == 1) {
    for (int task = 0; task < tasks; task++) run(p, 0, task);
    return;
  }
  t->run = run;
  t->pass = p;
  atomic_store(&t->done, 0);
  unsigned long long generation = (atomic_load(&t->ticket) >> 32) + 1;
  atomic_store(&t->ticket, generation << 32 | (unsigned long long)tasks << 16);
  if (atomic_load(&t->sleepers)) wake_helpers(t);
  take_tasks(t, 0);
  while (atomic_load(&t->done) < tasks) relax();
}

/* ---- sections of a pass -------------------------------------------------------------------------------------- */

static void rms_norm(const float *x, long stride, int rows, int width, const float *weight, float *out) {
  for (int r = 0; r < rows; r++, x += stride, out += stride) {
    vec squares = splat(0);
    for (int i = 0; i < width; i += LANES) squares += load(x + i) * load(x + i);
    float scale = 1.0f / sqrtf(sum(squares) / width + 1e-6f);
    for (int i = 0; i < width; i += LANES) store(out + i, load(x + i) * scale * load(weight + i));
  }
}

/* Each thread norms for itself, once a phase: cheaper than waiting for another to do it. */
static const float *normed(pass *p, int thread, const float *x, int rows, const float *weight) {
  scratch *s = &p->scratch[thread];
  if (s->normed_for != p->phase) {
    rms_norm(x, STRIDE(p->net->d.width), rows, p->net->d.width, weight, s->normed);
    s->normed_for = p->phase;
  }
  return s->normed;
}

static void input_hidden(pass *p, int thread, int task) {
  const network *net = p->net;
  const int inputs = 2 * net->d.patch, most = tile_rows(p->tokens, ROWS2), column = task * 2 * LANES;
  const float *panel = net->in_hidden + (long)task * inputs * 2 * LANES;
  vec *acc = p->scratch[thread].accumulators;
  for (int row = 0; row < p->tokens; row += most) {
    const int m = p->tokens - row < most ? p->tokens - row : most;
    for (int i = 0; i < 2 * m; i++) acc[i] = load(net->in_hidden_bias + column + i % 2 * LANES);
    MULTIPLY2[m](p->w->input + (long)row * STRIDE(inputs), STRIDE(inputs), panel, inputs, acc);
    for (int i = 0; i < 2 * m; i++)
      store(p->w->up + (row + i / 2) * (long)STRIDE(net->d.hidden) + column + i % 2 * LANES, vmax(acc[i], splat(0)));
  }
}

static void input_out(pass *p, int thread, int task) {
  const network *net = p->net;
  const int inputs = 2 * net->d.patch, hidden = net->d.hidden, most = tile_rows(p->tokens, ROWS2);
  const int column = task * 2 * LANES;
  vec *acc = p->scratch[thread].accumulators;
  for (int row = 0; row < p->tokens; row += most) {
    const int m = p->tokens - row < most ? p->tokens - row : most;
    for (int i = 0; i < 2 * m; i++) acc[i] = load(net->in_bias + column + i % 2 * LANES);
    MULTIPLY2[m](p->w->up + (long)row * STRIDE(hidden), STRIDE(hidden), net->in_out + (long)column * hidden, hidden, acc);
    MULTIPLY2[m](p->w->input + (long)row * STRIDE(inputs), STRIDE(inputs), net->in_residual + (long)column * inputs,
                 inputs, acc);
    for (int i = 0; i < 2 * m; i++)
      store(p->w->x + (row + i / 2) * (long)STRIDE(net->d.width) + column + i % 2 * LANES, acc[i]);
  }
}

/* One step of the cell for LANES units of one row (Beck et al., 2024, arXiv 2405.04517, equations 8 to 17). */
static inline vec cell(const vec *raw, float *c_state, float *n_state, float *m_state) {
  vec c = load(c_state), n = load(n_state), m = load(m_state);
  vec kept = m + vlogsigmoid(vmin(raw[1], splat(15.0f)));
  /* An empty state has nothing to forget. */
  vec m_new = pick(n == splat(0), raw[0], vmax(raw[0], kept));
  vec i_gate = vmin(vexp(raw[0] - m_new), splat(1)), f_gate = vmin(vexp(kept - m_new), splat(1));
  c = f_gate * c + i_gate * vtanh(raw[2]);
  n = f_gate * n + i_gate;
  store(c_state, c);
  store(n_state, n);
  store(m_state, m_new);
  return vsigmoid(raw[3]) * c / n;
}

static void group_norm(const float *y, int width, const float *weight, const float *x, float *out) {
  vec total = splat(0), squares = splat(0);
  for (int i = 0; i < width; i += LANES) total += load(y + i);
  const float mean = sum(total) / width;
  for (int i = 0; i < width; i += LANES) {
    vec centred = load(y + i) - mean;
    squares += centred * centred;
  }
  const float scale = 1.0f / sqrtf(sum(squares) / width + 1e-5f);
  for (int i = 0; i < width; i += LANES)
    store(out + i, load(x + i) + (load(y + i) - mean) * scale * load(weight + i));
}

/* A head: its gates' input part for all tokens, the scan over time, the group norm and the residual. */
static void head(pass *p, int thread, int task) {
  const network *net = p->net;
  const block_weights *b = &net->block[p->block];
  workspace *w = p->w;
  scratch *s = &p->scratch[thread];
  const int width = net->d.width, hw = net->head_width, units = net->units, first = task * hw;
  const long stride = STRIDE(width), wide = IFZO * LANES, panel_floats = (long)hw * wide;
  const float *x = normed(p, thread, w->x, p->tokens, b->norm) + first;
  vec *acc = s->accumulators;

  const int most = tile_rows(p->tokens, ROWS4);
  for (int u = 0; u < units; u++) {
    const float *bias = b->bias + (task * units + u) * wide;
    for (int row = 0; row < p->tokens; row += most) {
      const int m = p->tokens - row < most ? p->tokens - row : most;
      for (int i = 0; i < IFZO * m; i++) acc[i] = load(bias + i % IFZO * LANES);
      MULTIPLY4[m](x + row * stride, stride, b->gates + (task * units + u) * panel_floats, hw, acc);
      for (int i = 0; i < IFZO * m; i++)
        store(s->gates + (row + i / IFZO) * (long)IFZO * hw + u * wide + i % IFZO * LANES, acc[i]);
    }
  }

  for (int row = 0; row < p->rows; row++) {
    const int empty = net->d.tokens - p->counts[w->order[row]];
    const float *from = net->prefix + ((long)empty * net->d.blocks + p->block) * STATES * width + first;
    for (int k = 0; k < STATES; k++) memcpy(w->state[k] + row * stride + first, from + k * width, hw * sizeof(float));
  }
  float *fresh = (float *)(acc + IFZO * ROWS4);
  for (int t = 0; t < p->steps; t++) {
    const int active = w->active[t], tile = tile_rows(active, ROWS4);
    for (int row = 0; row < active; row += tile) {
      const int m = active - row < tile ? active - row : tile;
      const long token = w->offset[t] + row;
      for (int u = 0; u < units; u++) {
        for (int i = 0; i < IFZO * m; i++)
          acc[i] = load(s->gates + (token + i / IFZO) * IFZO * hw + u * wide + i % IFZO * LANES);
        MULTIPLY4[m](w->state[Y] + row * stride + first, stride, b->recurrent + (task * units + u) * panel_floats, hw, acc);
        for (int i = 0; i < m; i++) {
          const long at = (row + i) * stride + first + u * LANES;
          store(fresh + i * hw + u * LANES,
                cell(acc + i * IFZO, w->state[C] + at, w->state[N] + at, w->state[M] + at));
        }
      }
      for (int i = 0; i < m; i++) {
        memcpy(w->state[Y] + (row + i) * stride + first, fresh + i * hw, hw * sizeof(float));
        /* Not into x, which another thread may still be norming for its own head. */
        group_norm(fresh + i * hw, hw, b->group + first, w->x + (token + i) * stride + first,
                   w->mixed + (token + i) * stride + first);
      }
    }
    if (p->capture) {
      float *to = p->capture + ((long)(t + 1) * net->d.blocks + p->block) * STATES * width + first;
      for (int k = 0; k < STATES; k++) memcpy(to + k * width, w->state[k] + first, hw * sizeof(float));
    }
  }
}

/* Tokens that the feed-forward part runs over: all, or after the last scan the last of each window. */
static int ffn_rows(const pass *p) { return p->block == p->net->d.blocks - 1 ? p->rows : p->tokens; }
static long ffn_start(const pass *p) { return (long)(p->tokens - ffn_rows(p)) * STRIDE(p->net->d.width); }

static void gate_up(pass *p, int thread, int task) {
  const network *net = p->net;
  const block_weights *b = &net->block[p->block];
  const int width = net->d.width, rows = ffn_rows(p), most = tile_rows(rows, ROWS2);
  const float *x = normed(p, thread, p->w->mixed + ffn_start(p), rows, b->ffn_norm);
  const float *panel = b->gate_up + (long)task * width * 2 * LANES;
  vec *acc = p->scratch[thread].accumulators;
  for (int row = 0; row < rows; row += most) {
    const int m = rows - row < most ? rows - row : most;
    for (int i = 0; i < 2 * m; i++) acc[i] = splat(0);
    MULTIPLY2[m](x + (long)row * STRIDE(width), STRIDE(width), panel, width, acc);
    for (int i = 0; i < m; i++)
      store(p->w->up + (row + i) * (long)STRIDE(net->d.up) + task * LANES,
            acc[2 * i] * vsigmoid(acc[2 * i]) * acc[2 * i + 1]);
  }
}

static void down(pass *p, int thread, int task) {
  const network *net = p->net;
  const int up = net->d.up, rows = ffn_rows(p), most = tile_rows(rows, ROWS2), column = task * 2 * LANES;
  const float *panel = net->block[p->block].down + (long)column * up;
  vec *acc = p->scratch[thread].accumulators;
  for (int row = 0; row < rows; row += most) {
    const int m = rows - row < most ? rows - row : most;
    for (int i = 0; i < 2 * m; i++) acc[i] = splat(0);
    MULTIPLY2[m](p->w->up + (long)row * STRIDE(up), STRIDE(up), panel, up, acc);
    for (int i = 0; i < 2 * m; i++) {
      const long at = ffn_start(p) + (row + i / 2) * (long)STRIDE(net->d.width) + column + i % 2 * LANES;
      store(p->w->x + at, load(p->w->mixed + at) + acc[i]);
    }
  }
}

static void output_hidden(pass *p, int thread, int task) {
  const network *net = p->net;
  const int width = net->d.width, rows = p->rows, most = tile_rows(rows, ROWS2), column = task * 2 * LANES;
  const float *x = normed(p, thread, p->w->x + ffn_start(p), rows, net->out_norm);
  vec *acc = p->scratch[thread].accumulators;
  for (int row = 0; row < rows; row += most) {
    const int m = rows - row < most ? rows - row : most;
    for (int i = 0; i < 2 * m; i++) acc[i] = load(net->out_hidden_bias + column + i % 2 * LANES);
    MULTIPLY2[m](x + (long)row * STRIDE(width), STRIDE(width), net->out_hidden + (long)column * width, width, acc);
    for (int i = 0; i < 2 * m; i++)
      store(p->w->up + (row + i / 2) * (long)STRIDE(net->d.hidden) + column + i % 2 * LANES, vmax(acc[i], splat(0)));
  }
}

static void output_out(pass *p, int thread, int task) {
  const network *net = p->net;
  const int width = net->d.width, hidden = net->d.hidden, rows = p->rows, most = tile_rows(rows, ROWS2);
  const int column = task * 2 * LANES;
  const float *x = normed(p, thread, p->w->x + ffn_start(p), rows, net->out_norm);
  vec *acc = p->scratch[thread].accumulators;
  for (int row = 0; row < rows; row += most) {
    const int m = rows - row < most ? rows - row : most;
    for (int i = 0; i < 2 * m; i++) acc[i] = load(net->out_bias + column + i % 2 * LANES);
    MULTIPLY2[m](p->w->up + (long)row * STRIDE(hidden), STRIDE(hidden), net->out_out + (long)column * hidden, hidden, acc);
    MULTIPLY2[m](x + (long)row * STRIDE(width), STRIDE(width), net->out_residual + (long)column * width, width, acc);
    for (int i = 0; i < 2 * m; i++)
      store(p->w->last + (row + i / 2) * (long)net->output_stride + column + i % 2 * LANES, acc[i]);
  }
}

/* ---- a chunk of windows through the network ------------------------------------------------------------------ */

static void order_windows(pass *p) {
  /* Longest first, so that the windows whose bars have begun are always the first ones. Counting sort. */
  workspace *w = p->w;
  int place = 0;
  for (int count = p->steps; count > 0; count--)
    for (int row = 0; row < p->rows; row++)
      if (p->counts[row] == count) w->order[place++] = row;
  p->tokens = 0;
  for (int t = 0; t < p->steps; t++) {
    w->offset[t] = p->tokens;
    w->active[t] = 0;
    while (w->active[t] < p->rows && p->counts[w->order[w->active[t]]] >= p->steps - t) w->active[t]++;
    p->tokens += w->active[t];
  }
}

/* tokens: [rows][steps][2 * patch], the last counts[row] of each row hold bars; out: [rows][outputs] */
static void forward_chunk(pass *p, team *t, const float *tokens) {
  const network *net = p->net;
  workspace *w = p->w;
  const int inputs = 2 * net->d.patch, threads = t ? t->size : 1;
  order_windows(p);
  for (int step = 0; step < p->steps; step++)
    for (int row = 0; row < w->active[step]; row++)
      memcpy(w->input + (long)(w->offset[step] + row) * STRIDE(inputs),
             tokens + ((long)w->order[row] * p->steps + step) * inputs, inputs * sizeof(float));
  for (int thread = 0; thread < threads; thread++) p->scratch[thread].normed_for = 0;
  p->phase = 1;
  p->block = 0;
  run_section(t, input_hidden, p, net->d.hidden / (2 * LANES));
  run_section(t, input_out, p, net->d.width / (2 * LANES));
  for (p->block = 0; p->block < net->d.blocks; p->block++) {
    run_section(t, head, p, net->d.heads);
    p->phase++;
    run_section(t, gate_up, p, net->d.up / LANES);
    run_section(t, down, p, net->d.width / (2 * LANES));
    p->phase++;
  }
  p->block--; /* the last tokens' place */
  if (!p->out) return;
  run_section(t, output_hidden, p, net->d.hidden / (2 * LANES));
  run_section(t, output_out, p, net->output_stride / (2 * LANES));
  for (int row = 0; row < p->rows; row++)
    memcpy(p->out + (long)w->order[row] * net->d.outputs, w->last + (long)row * net->output_stride,
           net->d.outputs * sizeof(float));
}

static void free_workspace(workspace *w) {
  void *all[] = {w->input, w->x, w->mixed, w->up, w->state[Y], w->state[C], w->state[N], w->state[M], w->last,
                 w->offset, w->active, w->order};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
  memset(w, 0, sizeof *w);
}

static int make_workspace(const network *net, workspace *w, long tokens, long rows, int steps) {
  const long widest = net->d.hidden > net->d.up ? net->d.hidden : net->d.up;
  int ok = 1;
  memset(w, 0, sizeof *w);
  ok &= (w->input = aligned(tokens * STRIDE(2 * net->d.patch))) != NULL;
  ok &= (w->x = aligned(tokens * STRIDE(net->d.width))) != NULL;
  ok &= (w->mixed = aligned(tokens * STRIDE(net->d.width))) != NULL;
  ok &= (w->up = aligned(tokens * STRIDE(widest))) != NULL;
  for (int k = 0; k < STATES; k++) ok &= (w->state[k] = aligned(rows * STRIDE(net->d.width))) != NULL;
  ok &= (w->last = aligned(rows * net->output_stride)) != NULL;
  ok &= (w->offset = malloc(steps * sizeof(int))) != NULL;
  ok &= (w->active = malloc(steps * sizeof(int))) != NULL;
  ok &= (w->order = malloc(rows * sizeof(int))) != NULL;
  return ok;
}

static int make_scratch(const network *net, scratch *s, long tokens) {
  s->normed = aligned(tokens * STRIDE(net->d.width));
  s->gates = aligned(tokens * IFZO * net->head_width);
  s->accumulators = aligned((2 * ROWS2 > IFZO * ROWS4 ? 2 * ROWS2 : IFZO * ROWS4) * LANES + ROWS4 * net->head_width);
  return s->normed && s->gates && s->accumulators;
}

static void free_scratch(scratch *s) {
  free(s->normed);
  free(s->gates);
  free(s->accumulators);
}

/* ---- chunks over threads ------------------------------------------------------------------------------------- */

typedef struct {
  pass base; /* first, so that a pass is what the team hands on */
  const float *tokens;
  workspace *spaces;
  int per_chunk;
} batch;

static void chunk(pass *p, int thread, int task) {
  batch *all = (batch *)p;
  const int from = task * all->per_chunk;
  pass one = all->base;
  one.w = &all->spaces[thread];
  one.scratch = &all->base.scratch[thread];
  one.counts += from;
  one.rows = one.rows - from < all->per_chunk ? one.rows - from : all->per_chunk;
  one.out += (long)from * one.net->d.outputs;
  forward_chunk(&one, NULL, all->tokens + (long)from * one.steps * 2 * one.net->d.patch);
}

/* ---- interface ----------------------------------------------------------------------------------------------- */

const char *sage_isa(void) { return ISA; }

/* Quantiles of scaled tokens. tokens: [rows][steps][2 * patch] (values, then 1 where there is one); the last
   counts[row] >= 1 tokens of a row hold bars; out: [rows][outputs]. Returns 0, or 1 if memory ran out. */
int sage_forward(network *net, const float *tokens, int rows, int steps, const int *counts, float *out) {
  const unsigned before = flush_denormals();
  const int threads = net->team->size;
  int per_chunk = CHUNK_TOKENS / steps > 1 ? CHUNK_TOKENS / steps : 1;
  int chunks = (rows + per_chunk - 1) / per_chunk;
  if (chunks > 1) { /* as many for each thread */
    chunks = (chunks + threads - 1) / threads * threads;
    per_chunk = (rows + chunks - 1) / chunks;
    chunks = (rows + per_chunk - 1) / per_chunk;
  } else {
    per_chunk = rows;
  }
  const int spaces = chunks > 1 ? threads : 1;
  workspace w[spaces];
  scratch s[threads];
  memset(w, 0, sizeof w);
  memset(s, 0, sizeof s);
  int ok = 1;
  for (int i = 0; i < spaces; i++) ok &= make_workspace(net, &w[i], (long)per_chunk * steps, per_chunk, steps);
  for (int i = 0; i < threads; i++) ok &= make_scratch(net, &s[i], (long)per_chunk * steps);
  if (ok) {
    pass base = {.net = net, .w = w, .scratch = s, .counts = counts, .rows = rows, .steps = steps, .out = out};
    if (chunks > 1) {
      batch all = {.base = base, .tokens = tokens, .spaces = w, .per_chunk = per_chunk};
      run_section(net->team, chunk, &all.base, chunks);
    } else {
      forward_chunk(&base, net->team, tokens);
    }
  }
  for (int i = 0; i < spaces; i++) free_workspace(&w[i]);
  for (int i = 0; i < threads; i++) free_scratch(&s[i]);
  restore_denormals(before);
  return !ok;
}

/* Panels of `vectors` * LANES columns: [panel][k][column]. Row n of `weight` (stride `stride`) has column n's k weights. */
static void pack(float *to, const float *weight, int columns, int k, int vectors, int padded) {
  const int wide = vectors * LANES;
  for (int n = 0; n < padded; n++)
    for (int l = 0; l < k; l++)
      to[(long)(n / wide) * k * wide + (long)l * wide + n % wide] = n < columns ? weight[(long)n * k + l] : 0.0f;
}

static float *packed(network *net, const float *weight, int columns, int k, int padded) {
  float *to = owned(net, (size_t)padded * k);
  if (to) pack(to, weight, columns, k, 2, padded);
  return to;
}

static float *copied(network *net, const float *from, int count, int padded) {
  float *to = owned(net, padded);
  if (to)
    for (int i = 0; i < padded; i++) to[i] = i < count ? from[i] : 0.0f;
  return to;
}

static float *summed(network *net, const float *a, const float *b, int count, int padded) {
  float *to = copied(net, a, count, padded);
  for (int i = 0; to && i < count; i++) to[i] += b[i];
  return to;
}

static void pack_block(network *net, block_weights *b, const float *const *from) {
  const int width = net->d.width, heads = net->d.heads, hw = net->head_width, up = net->d.up;
  const float *const *gate = from + 1, *recurrent = from[5], *bias = from[6], *proj_gate = from[9], *proj_up = from[10];
  b->norm = copied(net, from[0], width, width);
  b->gates = owned(net, (size_t)IFZO * width * hw);
  b->recurrent = owned(net, (size_t)IFZO * width * hw);
  b->bias = owned(net, (size_t)IFZO * width);
  b->group = copied(net, from[7], width, width);
  b->ffn_norm = copied(net, from[8], width, width);
  b->gate_up = owned(net, (size_t)2 * up * width);
  b->down = packed(net, from[11], width, up, width);
  if (net->failed) return;
  for (int i = 0; i < width; i++) b->group[i] += 1.0f;
  /* The four gates of LANES units lie side by side, so that a tile has all that the cell needs. */
  for (int h = 0; h < heads; h++)
    for (int unit = 0; unit < hw; unit++)
      for (int g = 0; g < IFZO; g++) {
        const long panel = h * net->units + unit / LANES, column = g * LANES + unit % LANES;
        b->bias[panel * IFZO * LANES + column] = bias[(h * IFZO + g) * hw + unit];
        for (int k = 0; k < hw; k++) {
          const long at = (panel * hw + k) * IFZO * LANES + column;
          b->gates[at] = gate[g][((long)h * hw + unit) * hw + k];
          b->recurrent[at] = recurrent[((long)h * hw + k) * IFZO * hw + g * hw + unit];
        }
      }
  for (int n = 0; n < up; n++)
    for (int k = 0; k < width; k++) {
      float *at = b->gate_up + ((long)(n / LANES) * width + k) * 2 * LANES + n % LANES;
      at[0] = proj_gate[(long)n * width + k];
      at[LANES] = proj_up[(long)n * width + k];
    }
}

/* The states behind every number of empty tokens: one pass over as many, recording as it goes. */
static void compute_prefix(network *net) {
  const int steps = net->d.tokens - 1, inputs = 2 * net->d.patch;
  net->prefix = owned(net, (size_t)net->d.tokens * net->d.blocks * STATES * net->d.width);
  if (net->failed) return;
  memset(net->prefix, 0, sizeof(float) * net->d.tokens * net->d.blocks * STATES * net->d.width);
  if (!steps) return;
  workspace w;
  scratch s[net->team->size];
  memset(s, 0, sizeof s);
  int ok = make_workspace(net, &w, steps, 1, steps);
  for (int i = 0; i < net->team->size; i++) ok &= make_scratch(net, &s[i], steps);
  float *empty = calloc((size_t)steps * inputs, sizeof(float));
  if (ok && empty) {
    /* All tokens count as begun, from the zero state on, which is the state behind no token at all. */
    dimensions whole = net->d;
    net->d.tokens = steps;
    pass p = {.net = net, .w = &w, .scratch = s, .counts = &steps, .rows = 1, .steps = steps, .capture = net->prefix};
    forward_chunk(&p, net->team, empty);
    net->d = whole;
  } else {
    net->failed = 1;
  }
  free(empty);
  free_workspace(&w);
  for (int i = 0; i < net->team->size; i++) free_scratch(&s[i]);
}

void sage_destroy(network *net);

/* tensors: input hidden weight, bias, output weight, bias, residual weight, bias; the same for the output; output
   norm; then for each block: norm, gates (4), recurrent, bias, group norm, ffn norm, gate, up, down. All are copied.
   dims: width, heads, blocks, patch, hidden, up, outputs, tokens. Returns NULL if memory ran out. */
network *sage_create(const int *dims, const float *const *tensors, int threads) {
  network *net = calloc(1, sizeof *net);
  if (!net) return NULL;
  net->d = (dimensions){dims[0], dims[1], dims[2], dims[3], dims[4], dims[5], dims[6], dims[7]};
  const dimensions d = net->d;
  const int inputs = 2 * d.patch, wide = 2 * LANES;
  net->head_width = d.width / d.heads;
  net->units = net->head_width / LANES;
  net->output_stride = (d.outputs + wide - 1) / wide * wide;
  net->block = calloc(d.blocks, sizeof *net->block);
  net->team = make_team(threads);
  if (!net->block || !net->team) net->failed = 1;
  const float *const *in = tensors, *const *out = tensors + 6;
  net->in_hidden = packed(net, in[0], d.hidden, inputs, d.hidden);
  net->in_hidden_bias = copied(net, in[1], d.hidden, d.hidden);
  net->in_out = packed(net, in[2], d.width, d.hidden, d.width);
  net->in_residual = packed(net, in[4], d.width, inputs, d.width);
  net->in_bias = summed(net, in[3], in[5], d.width, d.width);
  net->out_hidden = packed(net, out[0], d.hidden, d.width, d.hidden);
  net->out_hidden_bias = copied(net, out[1], d.hidden, d.hidden);
  net->out_out = packed(net, out[2], d.outputs, d.hidden, net->output_stride);
  net->out_residual = packed(net, out[4], d.outputs, d.width, net->output_stride);
  net->out_bias = summed(net, out[3], out[5], d.outputs, net->output_stride);
  net->out_norm = copied(net, tensors[12], d.width, d.width);
  for (int b = 0; b < d.blocks && !net->failed; b++) pack_block(net, &net->block[b], tensors + 13 + 12 * b);
  const unsigned before = flush_denormals();
  if (!net->failed) compute_prefix(net);
  restore_denormals(before);
  if (net->failed) {
    sage_destroy(net);
    return NULL;
  }
  return net;
}

void sage_destroy(network *net) {
  if (!net) return;
  end_team(net->team);
  float *all[] = {net->in_hidden, net->in_hidden_bias, net->in_out, net->in_residual, net->in_bias, net->out_norm,
                  net->out_hidden, net->out_hidden_bias, net->out_out, net->out_residual, net->out_bias, net->prefix};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
  for (int b = 0; net->block && b < net->d.blocks; b++) {
    block_weights *w = &net->block[b];
    float *of_block[] = {w->norm, w->gates, w->recurrent, w->bias, w->group, w->ffn_norm, w->gate_up, w->down};
    for (size_t i = 0; i < sizeof of_block / sizeof *of_block; i++) free(of_block[i]);
  }
  free(net->block);
  free(net);
}
