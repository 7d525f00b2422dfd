// cycle.cc - open, run and close many times, with two models open at once; for LeakSanitizer.
//
// usage: cycle ARTIFACT OTHER COUNT. Prints what is left over compared with the first turn.
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "pilite.h"

namespace {

long count_files() {
  DIR* folder = opendir("/proc/self/fd");
  long n = 0;
  while (folder && readdir(folder)) ++n;
  if (folder) closedir(folder);
  return n;
}

long count_mapped_models(const char* path) {
  FILE* maps = fopen("/proc/self/maps", "r");
  const char* base = path;
  for (const char* p = path; *p; ++p) base = *p == '/' ? p : base;
  char line[4096];
  long n = 0;
  while (maps && fgets(line, sizeof line, maps)) n += __builtin_strstr(line, base) != nullptr;
  if (maps) fclose(maps);
  return n;
}

long address_space_kib() {
  long pages = 0;
  FILE* file = fopen("/proc/self/statm", "r");
  if (file && fscanf(file, "%ld", &pages) != 1) pages = 0;
  if (file) fclose(file);
  return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

bool turn(const char* path, const char* other, uint32_t threads) {
  pilite_options options = {sizeof options, threads, nullptr, 0, 0};
  pilite_session* sessions[3] = {};
  const char* paths[] = {path, other, path};
  bool good = true;
  for (int i = 0; i < 3; ++i) good = !pilite_open(paths[i], &options, &sessions[i]) && good;
  for (int i = 0; i < 3 && good; ++i) good = !pilite_run(sessions[i]) && good;
  for (pilite_session* session : sessions) pilite_close(session);
  return good;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4 || !turn(argv[1], argv[2], 4)) return printf("%s\n", pilite_error()), 2;
  const long files = count_files(), kib = address_space_kib();
  for (long i = 0; i < atol(argv[3]); ++i) {
    if (!turn(argv[1], argv[2], static_cast<uint32_t>(1 + i % 4))) return printf("%s\n", pilite_error()), 1;
  }
  const long models = count_mapped_models(argv[1]) + count_mapped_models(argv[2]);
  printf("files %ld, models %ld, KiB %ld\n", count_files() - files, models, address_space_kib() - kib);
  return 0;
}
