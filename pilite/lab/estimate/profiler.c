/* profiler.c - QEMU plugin (user mode): how often every block of code ran, what followed it, which caches it missed.
 *
 *   qemu-aarch64 -plugin profiler.so,out=FILE[,level=32768:4:private][,level=524288:16:shared] PROGRAM
 *
 * Marks are the system call `getpriority` with a first argument that the kernel refuses, so that they change
 * nothing: 0x5A0 comes before a warm-up, 0x5A1 starts what counts, 0x5A3 ends one section of it and starts the section
 * of its second argument, 0x5A2 ends. Before 0x5A0 the guest runs as fast as without a plugin; from there on the
 * caches are simulated.
 *
 * FILE, by line, in decimal unless noted; thread = order of creation, 0 = main:
 *   B block address(hex) instructions bytes(hex)          once per block, before its first use below
 *   P section                                             the lines below, up to the next P, are of this section
 *   X block thread executions (level misses)...
 *   E from-block to-block thread count
 *   H to-block block...                                   a way that led to `to`: the blocks before it, oldest first;
 *                                                         up to kContexts per E line, before it
 *   C (level misses, lines written back)...
 *   S instructions                                        last line: the file is whole */
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cache.h"
#include "qemu_api.h"

enum { kGetPriority = 141, kWarm = 0x5A0, kStart = 0x5A1, kStop = 0x5A2, kSection = 0x5A3, kBuckets = 1 << 16 };
enum { kMaxBytes = 4096 };                         /* QEMU ends a block after 512 instructions */
enum { kContexts = 4, kContextBlocks = 64 };

/* One step from a block to the next. `contexts`: what had run before it, at times that thin out as it repeats. */
typedef struct Edge {
  struct Block* to;
  uint64_t count, next_context;
  uint32_t n_contexts;
  struct Context* contexts[kContexts]; /* the latest ones */
  struct Edge* next;
} Edge;

/* The blocks that a thread ran last, oldest first; null where nothing ran yet. */
typedef struct Context {
  struct Block* blocks[kContextBlocks];
} Context;

/* What one thread did with one block in the current section. */
typedef struct {
  uint64_t executions, misses[kMaxLevels];
  Edge* edges; /* the latest first */
} Counts;

typedef struct Block {
  uint64_t address;
  uint32_t id, instructions, size;
  int printed;
  uint8_t* bytes;
  Counts* of[kMaxThreads]; /* by thread; null: never ran there */
  struct Block *in_bucket, *after;
} Block;

QEMU_EXPORT int qemu_plugin_version = 1;

static Block *buckets[kBuckets], *first, **last = &first;
static Block* recent[kMaxThreads][kContextBlocks]; /* a ring: the latest before `recent_at` */
static uint32_t recent_at[kMaxThreads];
static uint32_t n_blocks;
static uint64_t total;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static FILE* out;
static int watching, counting, finished;
static uint64_t section;

static Counts* counts(Block* block, unsigned thread) {
  Counts** of = &block->of[thread];
  if (!*of) *of = calloc(1, sizeof **of);
  return *of;
}

static Edge* edge(Counts* from, Block* to) {
  for (Edge **at = &from->edges, *e; (e = *at); at = &e->next) {
    if (e->to != to) continue;
    *at = e->next;
    e->next = from->edges;
    return from->edges = e;
  }
  Edge* e = calloc(1, sizeof *e);
  e->to = to;
  e->next = from->edges;
  return from->edges = e;
}

/* Keep what `thread` ran before this step, and choose the next time: about half as many steps again, never in tune
 * with a loop. */
static void keep_context(Edge* e, unsigned thread) {
  Context** slot = &e->contexts[e->n_contexts++ % kContexts];
  if (!*slot) *slot = malloc(sizeof **slot);
  for (uint32_t i = 0; i < kContextBlocks; ++i)
    (*slot)->blocks[i] = recent[thread][(recent_at[thread] + i) % kContextBlocks];
  e->next_context = e->count + e->count / 2 + (e->count * 2654435761u >> 7) % (e->count / 4 + 1);
}

static void count_step(unsigned thread, Block* before, Block* now) {
  Edge* e = edge(counts(before, thread), now);
  if (e->count++ >= e->next_context) keep_context(e, thread);
}

static void on_execute(unsigned vcpu, void* data) {
  if (!counting) return;
  const unsigned thread = vcpu % kMaxThreads;
  const uint32_t at = recent_at[thread];
  Block* before = recent[thread][(at + kContextBlocks - 1) % kContextBlocks];
  ++counts(data, thread)->executions;
  if (before) count_step(thread, before, data);
  recent[thread][at] = data;
  recent_at[thread] = (at + 1) % kContextBlocks;
}

static void on_miss(unsigned thread, Block* block, uint64_t line, uint64_t dirty_victim) {
  pthread_mutex_lock(&lock);
  const int missed = cache_fill(0, thread, line, dirty_victim);
  Counts* c = counts(block, thread);
  for (int i = 0; i < missed; ++i) ++c->misses[i];
  pthread_mutex_unlock(&lock);
}

/* The first level belongs to the thread, so that a hit, the usual case, needs no lock. */
static void on_access(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t address, void* data) {
  if (finished) return;
  const unsigned thread = vcpu % kMaxThreads;
  const uint64_t end = address + (1u << qemu_plugin_mem_size_shift(info)) - 1, store = qemu_plugin_mem_is_store(info);
  uint64_t victim;
  for (uint64_t line = address >> kLineShift; line <= end >> kLineShift; ++line)
    if (!cache_hit(&levels[0].of[thread], line, store, &victim)) on_miss(thread, data, line, victim);
}

/* The one Block for this code at this address, however often QEMU translates it. */
static Block* intern(uint64_t address, uint32_t instructions, const uint8_t* bytes, uint32_t size) {
  Block** bucket = &buckets[(uint32_t)((address >> 2) * 2654435761u) % kBuckets];
  pthread_mutex_lock(&lock);
  Block* b = *bucket;
  while (b && (b->address != address || b->size != size || memcmp(b->bytes, bytes, size))) b = b->in_bucket;
  if (!b) {
    b = calloc(1, sizeof *b);
    *b = (Block){address, n_blocks++, instructions, size, 0, malloc(size), {0}, *bucket, NULL};
    memcpy(b->bytes, bytes, size);
    *bucket = *last = b;
    last = &b->after;
  }
  pthread_mutex_unlock(&lock);
  return b;
}

static void on_translate(qemu_plugin_id_t id, struct qemu_plugin_tb* tb) {
  (void)id;
  uint8_t bytes[kMaxBytes];
  uint32_t size = 0;
  const size_t n = qemu_plugin_tb_n_insns(tb);
  for (size_t i = 0; i < n; ++i) {
    const struct qemu_plugin_insn* insn = qemu_plugin_tb_get_insn(tb, i);
    const size_t more = qemu_plugin_insn_size(insn);
    if (size + more > sizeof bytes) break;
    memcpy(bytes + size, qemu_plugin_insn_data(insn), more);
    size += (uint32_t)more;
  }
  Block* block = intern(qemu_plugin_tb_vaddr(tb), (uint32_t)n, bytes, size);
  qemu_plugin_register_vcpu_tb_exec_cb(tb, on_execute, QEMU_PLUGIN_CB_NO_REGS, block);
  for (size_t i = 0; n_levels && i < n; ++i)
    qemu_plugin_register_vcpu_mem_cb(qemu_plugin_tb_get_insn(tb, i), on_access, QEMU_PLUGIN_CB_NO_REGS, QEMU_PLUGIN_MEM_RW,
                                     block);
}

static void free_edges(Edge* e) {
  while (e) {
    Edge* next = e->next;
    for (int i = 0; i < kContexts; ++i) free(e->contexts[i]);
    free(e);
    e = next;
  }
}

static void zero_counts(void) {
  for (Block* b = first; b; b = b->after)
    for (int t = 0; t < kMaxThreads; ++t) {
      if (!b->of[t]) continue;
      free_edges(b->of[t]->edges);
      memset(b->of[t], 0, sizeof *b->of[t]);
    }
  cache_zero_counts();
}

static void print_block(Block* b) {
  if (b->printed) return;
  b->printed = 1;
  fprintf(out, "B %u %" PRIx64 " %u ", b->id, b->address, b->instructions);
  for (uint32_t i = 0; i < b->size; ++i) fprintf(out, "%02x", b->bytes[i]);
  fputc('\n', out);
}

static void print_contexts(const Edge* e) {
  for (int i = 0; i < kContexts && e->contexts[i]; ++i) {
    Block** blocks = e->contexts[i]->blocks;
    for (int k = 0; k < kContextBlocks; ++k)
      if (blocks[k]) print_block(blocks[k]);
    fprintf(out, "H %u", e->to->id);
    for (int k = 0; k < kContextBlocks; ++k)
      if (blocks[k]) fprintf(out, " %u", blocks[k]->id);
    fputc('\n', out);
  }
}

static void print_counts(Block* b, int thread) {
  const Counts* c = b->of[thread];
  if (!c || !c->executions) return;
  total += c->executions * b->instructions;
  print_block(b);
  fprintf(out, "X %u %d %" PRIu64, b->id, thread, c->executions);
  for (int i = 0; i < n_levels; ++i) fprintf(out, " %" PRIu64, c->misses[i]);
  fputc('\n', out);
  for (const Edge* e = c->edges; e; e = e->next) {
    print_contexts(e);
    fprintf(out, "E %u %u %d %" PRIu64 "\n", b->id, e->to->id, thread, e->count);
  }
}

static void print_section(void) {
  fprintf(out, "P %" PRIu64 "\n", section);
  for (Block* b = first; b; b = b->after)
    for (int t = 0; t < kMaxThreads; ++t) print_counts(b, t);
  if (!n_levels) return;
  fputc('C', out);
  for (int i = 0; i < n_levels; ++i) fprintf(out, " %" PRIu64 " %" PRIu64, levels[i].misses, levels[i].written_back);
  fputc('\n', out);
}

/* Sections count between start and stop; marks after the stop are ignored, so a guest has one region. */
static void on_mark(uint64_t mark, uint64_t label) {
  if (finished || (mark != kStart && !counting)) return;
  if (counting) print_section();
  counting = 1;
  zero_counts();
  if (mark == kStart) memset(recent, 0, sizeof recent);
  section = mark == kSection ? label : 0;
  if (mark != kStop) return;
  finished = 1;
  counting = 0;
  fprintf(out, "S %" PRIu64 "\n", total);
  fclose(out);
}

static void watch(qemu_plugin_id_t id);

static void on_syscall(qemu_plugin_id_t id, unsigned vcpu, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3, uint64_t a4,
                       uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8) {
  (void)vcpu, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8;
  if (number != kGetPriority || a1 < kWarm || a1 > kSection) return;
  pthread_mutex_lock(&lock);
  if (watching) on_mark(a1, a2);
  const int starts = a1 == kWarm && !watching;
  watching |= starts;
  pthread_mutex_unlock(&lock);
  if (starts) qemu_plugin_reset(id, watch);
}

static void watch(qemu_plugin_id_t id) {
  qemu_plugin_register_vcpu_tb_trans_cb(id, on_translate);
  qemu_plugin_register_vcpu_syscall_cb(id, on_syscall);
}

static int parse_option(char* option) {
  if (!strncmp(option, "out=", 4)) return (out = fopen(option + 4, "w")) ? 0 : -1;
  return strncmp(option, "level=", 6) ? -1 : cache_add_level(option + 6);
}

QEMU_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t* info, int argc, char** argv) {
  (void)info;
  for (int i = 0; i < argc; ++i)
    if (parse_option(argv[i])) {
      fprintf(stderr, "profiler: bad option or unwritable file: %s\n", argv[i]);
      return -1;
    }
  if (!out) fprintf(stderr, "profiler: out=FILE is needed\n");
  if (!out) return -1;
  qemu_plugin_register_vcpu_syscall_cb(id, on_syscall);
  return 0;
}
