// xxh64.h - the XXH64 hash, seed 0, little-endian machines. It finds damage; it is no protection against an
// attacker.
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <string.h>

namespace pilite {

class Xxh64 {
 public:
  static constexpr size_t kStripe = 32;

  // `n` is a multiple of kStripe.
  void update(const uint8_t* p, size_t n) {
    for (const uint8_t* end = p + n; p != end; p += kStripe) {
      for (int i = 0; i < 4; ++i) lane_[i] = round(lane_[i], load<uint64_t>(p + 8 * i));
    }
    total_ += n;
  }

  // The last n < kStripe bytes.
  uint64_t finish(const uint8_t* p, size_t n) const {
    uint64_t h = (total_ ? merged() : k5) + total_ + n;
    for (; n >= 8; p += 8, n -= 8) h = rotate(h ^ round(0, load<uint64_t>(p)), 27) * k1 + k4;
    if (n >= 4) {
      h = rotate(h ^ load<uint32_t>(p) * k1, 23) * k2 + k3;
      p += 4;
      n -= 4;
    }
    for (; n; ++p, --n) h = rotate(h ^ *p * k5, 11) * k1;
    h = (h ^ h >> 33) * k2;
    h = (h ^ h >> 29) * k3;
    return h ^ h >> 32;
  }

  static uint64_t of(const void* data, size_t n) {
    Xxh64 hash;
    const uint8_t* p = static_cast<const uint8_t*>(data);
    size_t whole = n - n % kStripe;
    hash.update(p, whole);
    return hash.finish(p + whole, n - whole);
  }

 private:
  static constexpr uint64_t k1 = 0x9E3779B185EBCA87u, k2 = 0xC2B2AE3D27D4EB4Fu, k3 = 0x165667B19E3779F9u;
  static constexpr uint64_t k4 = 0x85EBCA77C2B2AE63u, k5 = 0x27D4EB2F165667C5u;

  static uint64_t rotate(uint64_t x, int bits) { return x << bits | x >> (64 - bits); }
  static uint64_t round(uint64_t acc, uint64_t value) { return rotate(acc + value * k2, 31) * k1; }
  template <class T>
  static T load(const uint8_t* p) {
    T value;
    memcpy(&value, p, sizeof value);
    return value;
  }
  uint64_t merged() const {
    uint64_t h = rotate(lane_[0], 1) + rotate(lane_[1], 7) + rotate(lane_[2], 12) + rotate(lane_[3], 18);
    for (uint64_t lane : lane_) h = (h ^ round(0, lane)) * k1 + k4;
    return h;
  }

  uint64_t lane_[4] = {k1 + k2, k2, 0, 0 - k1};
  uint64_t total_ = 0;
};

}  // namespace pilite
