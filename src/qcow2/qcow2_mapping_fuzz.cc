// SPDX-License-Identifier: Apache-2.0
// Any bytes as the L1 table and the two L2 tables of an image: | choice (1) | L1 table | L2 tables
// |. What a guest asks of it ends, and overwrites no table.
#include "qcow2/fuzzed_image_test.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  if (size == 0) return 0;
  // why: libFuzzer hands out uint8_t, our spans hold std::byte
  ringdisk::Bytes rest(reinterpret_cast<const std::byte*>(bytes + 1), size - 1);
  ringdisk::qcow2::FuzzedImage image(bytes[0]);
  image.overlay(image.at(3), 16, rest);
  image.overlay(image.at(4), image.cluster(), rest);
  image.overlay(image.at(5), image.cluster(), rest);
  image.use();
  return 0;
}
