/* cache_check.c - replays "thread line store" lines of stdin through cache.h; argv: its levels. Prints the counts. */
#include "cache.h"

int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i)
    if (cache_add_level(argv[i])) return 1;
  unsigned thread, line, store;
  while (scanf("%u %u %u", &thread, &line, &store) == 3) printf("%d ", cache_access(0, thread, line, store));
  printf("\n");
  for (int i = 0; i < n_levels; ++i) printf("%d %d ", (int)levels[i].misses, (int)levels[i].written_back);
  cache_zero_counts();
  return 0;
}
