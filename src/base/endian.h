// SPDX-License-Identifier: Apache-2.0
// Integers in memory as disk formats and protocols lay them: load_be32(p) reads four bytes at any
// alignment, most significant first. The caller has checked that the bytes are there.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace ringdisk {

static_assert(std::endian::native == std::endian::little, "the swaps below assume this");

namespace endian_internal {
template <class T>
T load(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}
template <class T>
void store(std::byte* to, T value) {
  std::memcpy(to, &value, sizeof value);
}
}  // namespace endian_internal

constexpr uint16_t swap_bytes(uint16_t value) { return __builtin_bswap16(value); }
constexpr uint32_t swap_bytes(uint32_t value) { return __builtin_bswap32(value); }
constexpr uint64_t swap_bytes(uint64_t value) { return __builtin_bswap64(value); }

inline uint16_t load_be16(const std::byte* from) {
  return swap_bytes(endian_internal::load<uint16_t>(from));
}
inline uint32_t load_be32(const std::byte* from) {
  return swap_bytes(endian_internal::load<uint32_t>(from));
}
inline uint64_t load_be64(const std::byte* from) {
  return swap_bytes(endian_internal::load<uint64_t>(from));
}
inline uint16_t load_le16(const std::byte* from) { return endian_internal::load<uint16_t>(from); }
inline uint32_t load_le32(const std::byte* from) { return endian_internal::load<uint32_t>(from); }
inline uint64_t load_le64(const std::byte* from) { return endian_internal::load<uint64_t>(from); }

inline void store_be16(std::byte* to, uint16_t value) {
  endian_internal::store(to, swap_bytes(value));
}
inline void store_be32(std::byte* to, uint32_t value) {
  endian_internal::store(to, swap_bytes(value));
}
inline void store_be64(std::byte* to, uint64_t value) {
  endian_internal::store(to, swap_bytes(value));
}
inline void store_le16(std::byte* to, uint16_t value) { endian_internal::store(to, value); }
inline void store_le32(std::byte* to, uint32_t value) { endian_internal::store(to, value); }
inline void store_le64(std::byte* to, uint64_t value) { endian_internal::store(to, value); }

}  // namespace ringdisk
