/* cache.h - data caches: set-associative, least recently used goes first, write-back, write-allocate, no prefetch.
 *
 * Up to three levels, each private to a thread or shared. A miss reads the line from the next level; a dirty line
 * that is thrown out is written to the next level. Behind the last level is memory. */
#ifndef PILITE_CACHE_H
#define PILITE_CACHE_H
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { kLineShift = 6, kMaxLevels = 3, kMaxThreads = 16 };

/* A way holds (line + 1) << 1 | dirty, or 0; the ways of a set are in the order of their last use. */
typedef struct {
  uint32_t ways, sets;
  uint64_t* slots;
} Cache;

typedef struct {
  Cache of[kMaxThreads]; /* a shared level uses the first */
  int shared;
  uint64_t misses, written_back;
} Level;

static Level levels[kMaxLevels];
static int n_levels;

/* "SIZE:WAYS:private" or "SIZE:WAYS:shared" adds a level behind the ones before; the first is private. 0 = done. */
static int cache_add_level(const char* text) {
  unsigned long size;
  unsigned ways;
  char kind[8];
  if (n_levels == kMaxLevels || sscanf(text, "%lu:%u:%7s", &size, &ways, kind) != 3 || !ways) return -1;
  Level* level = &levels[n_levels++];
  level->shared = !strcmp(kind, "shared");
  if (level->shared && n_levels == 1) return -1;
  for (int i = 0; i < (level->shared ? 1 : kMaxThreads); ++i) {
    Cache* c = &level->of[i];
    c->ways = ways;
    c->sets = (uint32_t)(size >> kLineShift) / ways;
    c->slots = calloc((size_t)c->sets * ways, sizeof *c->slots);
    if (!c->sets || !c->slots) return -1;
  }
  return 0;
}

/* Look a line up and make it the newest of its set. *dirty_victim: a dirty line that had to go, plus 1; or 0. */
static int cache_hit(Cache* c, uint64_t line, uint64_t store, uint64_t* dirty_victim) {
  const uint64_t key = (line + 1) << 1;
  uint64_t* way = c->slots + (size_t)(line % c->sets) * c->ways;
  uint32_t i = 0;
  while (i < c->ways - 1 && (way[i] | 1) != (key | 1)) ++i;
  const uint64_t found = way[i];
  const int hit = (found | 1) == (key | 1);
  memmove(way + 1, way, i * sizeof *way);
  way[0] = hit ? found | store : key | store;
  *dirty_victim = !hit && (found & 1) ? found >> 1 : 0;
  return hit;
}

static int cache_access(int depth, unsigned thread, uint64_t line, uint64_t store);

/* What a miss at `depth` causes; returns how many levels missed. */
static int cache_fill(int depth, unsigned thread, uint64_t line, uint64_t dirty_victim) {
  ++levels[depth].misses;
  if (dirty_victim) {
    ++levels[depth].written_back;
    cache_access(depth + 1, thread, dirty_victim - 1, 1);
  }
  return 1 + cache_access(depth + 1, thread, line, 0);
}

/* One line through the levels from `depth` on; returns how many levels missed. */
static int cache_access(int depth, unsigned thread, uint64_t line, uint64_t store) {
  if (depth == n_levels) return 0;
  Level* level = &levels[depth];
  uint64_t victim;
  if (cache_hit(&level->of[level->shared ? 0 : thread], line, store, &victim)) return 0;
  return cache_fill(depth, thread, line, victim);
}

static void cache_zero_counts(void) {
  for (int i = 0; i < n_levels; ++i) levels[i].misses = levels[i].written_back = 0;
}

#endif
