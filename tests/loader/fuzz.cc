// fuzz.cc - damage an artifact in many ways; every damaged file must be refused with one line, in one
// process.
//
// usage: fuzz ARTIFACT SCRATCH_FILE COUNT SEED. Prints "refused N" and exits 0, or says which damage got
// through.
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pilite.h"
#include "xxh64.h"

namespace {

struct Bytes {
  uint8_t* data;
  size_t size;
};

uint64_t state;

uint64_t pick(uint64_t below) {
  state = state * 6364136223846793005u + 1442695040888963407u;
  return (state >> 33) % below;
}

void set_u32(Bytes b, size_t field, uint32_t value) {
  memcpy(b.data + b.size - sizeof(pilite_footer) + field, &value, 4);
}
void set_u64(Bytes b, size_t field, uint64_t value) {
  memcpy(b.data + b.size - sizeof(pilite_footer) + field, &value, 8);
}

// Make the footer's own hash right again, so that the checks behind it are reached.
void hash_footer(Bytes b) {
  const uint8_t* footer = b.data + b.size - sizeof(pilite_footer);
  set_u64(b, offsetof(pilite_footer, footer_hash),
          pilite::Xxh64::of(footer, offsetof(pilite_footer, footer_hash)));
}

void truncate_end(Bytes* b) { b->size = pick(b->size); }
void cut_start(Bytes* b) {
  const size_t n = 1 + pick(b->size - 1);
  memmove(b->data, b->data + n, b->size -= n);
}
void flip_bit(Bytes* b) { b->data[pick(b->size)] ^= 1 << pick(8); }
void flip_header_byte(Bytes* b) { b->data[pick(4096)] ^= 0xff; }
void flip_footer_bit(Bytes* b) { b->data[b->size - 1 - pick(64)] ^= 1 << pick(8); }
void flip_manifest_bit(Bytes* b) { b->data[b->size - 65 - pick(64)] ^= 1 << pick(8); }
void zero_range(Bytes* b) {
  const size_t start = pick(b->size), n = 1 + pick(5000);
  memset(b->data + start, 0, n < b->size - start ? n : b->size - start);
}
void append(Bytes* b) {  // the buffer has room for it
  const size_t n = 1 + pick(64);
  for (size_t i = 0; i < n; ++i) b->data[b->size++] = static_cast<uint8_t>(pick(256));
}
void wrong_sizes(Bytes* b) {
  const uint64_t sizes[] = {0, 1, 64, b->size, b->size - 64, 1ull << 40, ~0ull, ~0ull - 63, pick(1u << 30)};
  set_u64(*b, offsetof(pilite_footer, elf_bytes), sizes[pick(9)]);
  if (pick(2)) set_u64(*b, offsetof(pilite_footer, json_bytes), sizes[pick(9)]);
  hash_footer(*b);
}
void wrong_version(Bytes* b) {
  set_u32(*b, pick(2) ? offsetof(pilite_footer, abi_major) : offsetof(pilite_footer, format),
          static_cast<uint32_t>(2 + pick(9)));
  hash_footer(*b);
}
void wrong_machine(Bytes* b) {
  set_u32(*b, offsetof(pilite_footer, elf_machine), static_cast<uint32_t>(pick(60)));
  hash_footer(*b);
}
void wrong_reserved(Bytes* b) { set_u64(*b, offsetof(pilite_footer, reserved), 1 + pick(1000)); }

// A manifest that a broken tool wrote and sealed properly. Its first entry is the build_id:
// {"build_id":"5e5e..."
void other_manifest(Bytes* b) {
  pilite_footer footer;
  memcpy(&footer, b->data + b->size - sizeof footer, sizeof footer);
  uint8_t* json = b->data + footer.elf_bytes;
  constexpr uint64_t kEntry = 13 + 64 + 1;
  constexpr char kJunk[] = "{}[]\"\\:, a0";
  const uint64_t from = pick(kEntry), n = 1 + pick(kEntry - from);
  for (uint64_t i = 0; i < n; ++i) json[from + i] = static_cast<uint8_t>(kJunk[pick(sizeof kJunk - 1)]);
  set_u64(*b, offsetof(pilite_footer, content_hash), pilite::Xxh64::of(b->data, b->size - sizeof footer));
  hash_footer(*b);
}

struct Damage {
  const char* name;
  void (*apply)(Bytes*);
};
constexpr Damage kDamages[] = {
    {"truncate_end", truncate_end},
    {"cut_start", cut_start},
    {"flip_bit", flip_bit},
    {"flip_header_byte", flip_header_byte},
    {"flip_footer_bit", flip_footer_bit},
    {"flip_manifest_bit", flip_manifest_bit},
    {"zero_range", zero_range},
    {"append", append},
    {"wrong_sizes", wrong_sizes},
    {"wrong_version", wrong_version},
    {"wrong_machine", wrong_machine},
    {"wrong_reserved", wrong_reserved},
    {"other_manifest", other_manifest},
};
constexpr size_t kCount = sizeof kDamages / sizeof *kDamages;
constexpr size_t kRoom = 128;

bool is_one_line(const char* text) { return *text && !strchr(text, '\n') && strlen(text) < 1024; }

bool write_file(const char* path, Bytes b) {
  const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
  const bool done = fd >= 0 && write(fd, b.data, b.size) == static_cast<ssize_t>(b.size);
  return !close(fd) && done;
}

bool read_file(const char* path, Bytes* b) {
  FILE* file = fopen(path, "rb");
  if (!file) return false;
  fseek(file, 0, SEEK_END);
  b->size = static_cast<size_t>(ftell(file));
  rewind(file);
  b->data = static_cast<uint8_t*>(malloc(b->size));
  const bool done = fread(b->data, 1, b->size, file) == b->size;
  fclose(file);
  return done;
}

bool is_refused(const char* path) {
  pilite_session* session = nullptr;
  const pilite_status status = pilite_open(path, nullptr, &session);
  return status != PILITE_OK && !session && is_one_line(pilite_error());
}

}  // namespace

int main(int argc, char** argv) {
  Bytes good;
  if (argc != 5 || !read_file(argv[1], &good)) return 2;
  state = strtoull(argv[4], nullptr, 10);
  const long count = atol(argv[3]);
  uint8_t* copy = static_cast<uint8_t*>(malloc(good.size + kRoom));
  long refused = 0;
  for (long i = 0; refused < count; ++i) {
    const Damage& damage = kDamages[static_cast<size_t>(i) % kCount];
    Bytes bad = {copy, good.size};
    memcpy(copy, good.data, good.size);
    damage.apply(&bad);
    if (bad.size == good.size && !memcmp(copy, good.data, good.size)) continue;  // zeros over zeros
    if (!write_file(argv[2], bad)) return 2;
    if (!is_refused(argv[2])) return printf("accepted or silent: %s, case %ld\n", damage.name, i), 1;
    ++refused;
  }
  free(copy);
  free(good.data);
  unlink(argv[2]);
  printf("refused %ld\n", refused);
  return 0;
}
