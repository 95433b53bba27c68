// SPDX-License-Identifier: Apache-2.0
// Any bytes as the stream of a compressed cluster, deflate or zstd, of any length in sectors and at
// any byte: | choice (1) | sectors (1) | first byte (2) | stream |. It gives a cluster or an error;
// it is copied when it is written to, and freed.
#include "qcow2/fuzzed_image_test.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  if (size < 4) return 0;
  using ringdisk::qcow2::Compression;
  using ringdisk::qcow2::kCompressed;
  // why: libFuzzer hands out uint8_t, our spans hold std::byte
  ringdisk::Bytes rest(reinterpret_cast<const std::byte*>(bytes + 4), size - 4);
  const bool is_zstd = (bytes[0] & 0x80) != 0;
  const Compression compression = is_zstd ? Compression::kZstd : Compression::kDeflate;
  ringdisk::qcow2::FuzzedImage image(bytes[0], compression);
  const uint32_t length_bits = image.geometry().cluster_bits() - 8;
  const uint64_t sectors = bytes[1] & ((uint64_t{1} << length_bits) - 1);
  const uint64_t offset = (uint64_t{bytes[2]} << 8 | bytes[3]) % image.cluster();
  const uint64_t place = image.at(6) + offset;
  image.overlay(place, 8 * image.cluster(), rest);
  image.stage().put64(image.at(4), kCompressed | sectors << (62 - length_bits) | place);
  image.use();
  return 0;
}
