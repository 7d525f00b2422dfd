// artifact.h - open an artifact, prove that it is whole, read its manifest. Nothing of it is executed here.
//
// The file is read with pread and never mapped: if somebody truncates it meanwhile, that is an error, not
// SIGBUS.
#pragma once
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <sys/stat.h>
#include <unistd.h>

#include "error.h"
#include "xxh64.h"

namespace pilite {

constexpr uint32_t kFormat = 1;
constexpr uint64_t kMaxManifest = 64u << 20;
constexpr unsigned kAnyMachine = 0;

struct Artifact {
  int fd = -1;
  struct stat stat = {};
  pilite_footer footer = {};
  char* manifest = nullptr;  // footer.json_bytes characters and a terminator

  ~Artifact() {
    if (fd >= 0) close(fd);
    free(manifest);
  }
};

inline bool read_exactly(int fd, void* data, size_t bytes, uint64_t offset) {
  char* p = static_cast<char*>(data);
  errno = 0;  // stays 0 at the end of the file
  while (bytes) {
    ssize_t n = pread(fd, p, bytes, static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    p += n;
    bytes -= static_cast<size_t>(n);
    offset += static_cast<uint64_t>(n);
  }
  return true;
}

inline pilite_status read_or_fail(const char* path, int fd, void* data, size_t bytes, uint64_t offset) {
  if (read_exactly(fd, data, bytes, offset)) return PILITE_OK;
  return fail(PILITE_E_IO, "%s: cannot be read: %s", path, errno ? strerror(errno) : "it became shorter");
}

inline const char* machine_name(unsigned machine) {
  switch (machine) {
    case EM_X86_64: return "x86-64";
    case 183: return "aarch64";
    case EM_ARM: return "32-bit ARM";
    default: return "an unknown machine";
  }
}

inline pilite_status open_file(const char* path, Artifact* artifact) {
  artifact->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a named pipe must not block
  if (artifact->fd < 0 || fstat(artifact->fd, &artifact->stat)) {
    return fail(PILITE_E_IO, "%s: cannot be opened: %s", path, strerror(errno));
  }
  if (!S_ISREG(artifact->stat.st_mode)) return fail(PILITE_E_IO, "%s: is not a regular file", path);
  return PILITE_OK;
}

// The file has no footer: say what it looks like instead.
inline pilite_status fail_without_footer(const char* path, int fd) {
  char magic[SELFMAG];
  const bool elf = read_exactly(fd, magic, sizeof magic, 0) && !memcmp(magic, ELFMAG, SELFMAG);
  return fail(
      PILITE_E_CORRUPT,
      elf ? "%s: an ELF file without a pilite footer: truncated, stripped or never sealed; copy it again"
          : "%s: not a pilite artifact",
      path);
}

inline pilite_status check_footer(const char* path, unsigned machine, Artifact* artifact) {
  const uint64_t size = static_cast<uint64_t>(artifact->stat.st_size);
  pilite_footer& f = artifact->footer;
  if (size < sizeof(Elf64_Ehdr) + sizeof f) {
    return fail(PILITE_E_CORRUPT, "%s: %llu bytes are too few for a pilite artifact", path,
                (unsigned long long)size);
  }
  if (read_or_fail(path, artifact->fd, &f, sizeof f, size - sizeof f)) return PILITE_E_IO;
  if (memcmp(f.magic, PILITE_MAGIC, sizeof f.magic)) return fail_without_footer(path, artifact->fd);
  if (Xxh64::of(&f, offsetof(pilite_footer, footer_hash)) != f.footer_hash) {
    return fail(PILITE_E_CORRUPT, "%s: the footer is damaged; copy the file again", path);
  }
  if (f.format != kFormat || f.abi_major != PILITE_ABI_MAJOR) {
    return fail(
        PILITE_E_ABI, "%s: has format %u and ABI %u.%u, this loader reads format %u and ABI %u.x; %s", path,
        f.format, f.abi_major, f.abi_minor, kFormat, PILITE_ABI_MAJOR,
        f.format > kFormat || f.abi_major > PILITE_ABI_MAJOR ? "update the loader" : "build the model again");
  }
  if (machine != kAnyMachine && f.elf_machine != machine) {
    return fail(PILITE_E_ARCH, "%s: made for %s (ELF machine %u), this computer is %s; build it for this CPU",
                path, machine_name(f.elf_machine), f.elf_machine, machine_name(machine));
  }
  const uint64_t body = size - sizeof f;
  if (f.elf_bytes > body || f.json_bytes != body - f.elf_bytes || f.elf_bytes < sizeof(Elf64_Ehdr) ||
      !f.json_bytes || f.json_bytes > kMaxManifest) {
    return fail(PILITE_E_CORRUPT,
                "%s: %llu bytes, but the footer describes %llu + %llu + %zu; copy the file again", path,
                (unsigned long long)size, (unsigned long long)f.elf_bytes, (unsigned long long)f.json_bytes,
                sizeof f);
  }
  if (f.reserved) return fail(PILITE_E_CORRUPT, "%s: the footer's reserved field is not zero", path);
  return PILITE_OK;
}

inline pilite_status check_content(const char* path, const Artifact& artifact) {
  uint8_t block[64 * 1024];
  Xxh64 hash;
  uint64_t left = artifact.footer.elf_bytes + artifact.footer.json_bytes, offset = 0;
  for (size_t n = sizeof block; left >= Xxh64::kStripe; left -= n, offset += n) {
    if (left < n) n = left - left % Xxh64::kStripe;
    if (read_or_fail(path, artifact.fd, block, n, offset)) return PILITE_E_IO;
    hash.update(block, n);
  }
  if (read_or_fail(path, artifact.fd, block, left, offset)) return PILITE_E_IO;
  if (hash.finish(block, left) != artifact.footer.content_hash) {
    return fail(PILITE_E_CORRUPT, "%s: the checksum differs: the file is damaged; copy it again", path);
  }
  return PILITE_OK;
}

// What ld.so would otherwise trip over, sealed by a broken tool.
inline pilite_status check_elf(const char* path, const Artifact& artifact) {
  Elf64_Ehdr e;
  if (read_or_fail(path, artifact.fd, &e, sizeof e, 0)) return PILITE_E_IO;
  if (memcmp(e.e_ident, ELFMAG, SELFMAG) || e.e_ident[EI_CLASS] != ELFCLASS64 ||
      e.e_ident[EI_DATA] != ELFDATA2LSB || e.e_type != ET_DYN || e.e_machine != artifact.footer.elf_machine) {
    return fail(PILITE_E_CORRUPT, "%s: does not start with the shared library that its footer describes",
                path);
  }
  return PILITE_OK;
}

inline pilite_status read_manifest(const char* path, Artifact* artifact) {
  const size_t n = artifact->footer.json_bytes;
  artifact->manifest = static_cast<char*>(malloc(n + 1));
  if (!artifact->manifest)
    return fail(PILITE_E_NOMEM, "%s: no memory for its manifest of %zu bytes", path, n);
  if (read_or_fail(path, artifact->fd, artifact->manifest, n, artifact->footer.elf_bytes)) return PILITE_E_IO;
  artifact->manifest[n] = 0;
  return PILITE_OK;
}

// All checks before dlopen, cheapest first. machine kAnyMachine: for reading the manifest only.
inline pilite_status open_artifact(const char* path, unsigned machine, bool checksum, Artifact* artifact) {
  pilite_status status = open_file(path, artifact);
  if (!status) status = check_footer(path, machine, artifact);
  if (!status && checksum) status = check_content(path, *artifact);
  if (!status) status = check_elf(path, *artifact);
  if (!status) status = read_manifest(path, artifact);
  return status;
}

// Whether `path` still names the file that was checked.
inline bool is_unchanged(const char* path, const struct stat& before) {
  struct stat now;
  return !stat(path, &now) && now.st_dev == before.st_dev && now.st_ino == before.st_ino &&
         now.st_size == before.st_size && now.st_mtim.tv_sec == before.st_mtim.tv_sec &&
         now.st_mtim.tv_nsec == before.st_mtim.tv_nsec;
}

// The value of the top-level string `key` in canonical JSON (no blanks), or NULL; *length is its raw length.
inline const char* json_string(const char* json, const char* key, size_t* length) {
  if (*json != '{') return nullptr;
  const size_t key_length = strlen(key);
  int depth = 0;
  for (const char* p = json; *p; ++p) {
    if (*p == '{' || *p == '[') ++depth;
    if (*p == '}' || *p == ']') --depth;
    if (*p != '"') continue;
    const char* start = ++p;
    for (; *p && *p != '"'; ++p) {
      if (*p == '\\' && p[1]) ++p;
    }
    if (!*p) return nullptr;
    const bool is_key =
        depth == 1 && static_cast<size_t>(p - start) == key_length && !memcmp(start, key, key_length);
    if (!is_key || p[1] != ':' || p[2] != '"') continue;
    const char* end = strchr(p + 3, '"');
    *length = end ? static_cast<size_t>(end - p - 3) : 0;
    return end ? p + 3 : nullptr;
  }
  return nullptr;
}

}  // namespace pilite
