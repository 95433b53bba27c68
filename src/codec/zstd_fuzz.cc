// SPDX-License-Identifier: Apache-2.0
// Any bytes as a Zstandard stream, into a target whose size the first two bytes choose: nothing is
// written outside of it.
#include "codec/zstd.h"

#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  if (size < 2) return 0;
  std::vector<std::byte> target(1 + (size_t{bytes[0]} | size_t{bytes[1]} << 8));
  ringdisk::ZstdDecoder decoder;
  // why: libFuzzer hands out uint8_t, our spans hold std::byte
  ringdisk::Bytes source(reinterpret_cast<const std::byte*>(bytes + 2), size - 2);
  ringdisk::Result<void> first = decoder.decompress(source, target);
  std::vector<std::byte> again(target.size());
  ringdisk::Result<void> second = decoder.decompress(source, again);
  CHECK_EQ(first.ok(), second.ok());
  if (first.ok()) CHECK(target == again);
  return 0;
}
