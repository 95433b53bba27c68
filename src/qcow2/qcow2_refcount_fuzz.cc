// SPDX-License-Identifier: Apache-2.0
// Any bytes as the beginning of the refcount table and as the refcount block of an image:
// | choice (1) | refcount table (32) | refcount block |. What a guest asks of it ends; clusters
// that hold tables are not given out, whatever their refcounts say.
#include "qcow2/fuzzed_image_test.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  if (size == 0) return 0;
  // why: libFuzzer hands out uint8_t, our spans hold std::byte
  ringdisk::Bytes rest(reinterpret_cast<const std::byte*>(bytes + 1), size - 1);
  ringdisk::qcow2::FuzzedImage image(bytes[0]);
  image.overlay(image.at(1), 32, rest);
  image.overlay(image.at(2), image.cluster(), rest);
  image.use();
  return 0;
}
