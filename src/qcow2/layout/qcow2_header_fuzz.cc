// SPDX-License-Identifier: Apache-2.0
// Any bytes as a header: nothing beyond them is read, and what is accepted is within all limits and
// comes back from its own encoding.
#include "base/diagnostics.h"
#include "qcow2/layout/header.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  using ringdisk::qcow2::Header;
  // why: libFuzzer hands out uint8_t, our spans hold std::byte
  ringdisk::Bytes input(reinterpret_cast<const std::byte*>(bytes), size);
  ringdisk::Diagnostics diagnostics;
  ringdisk::Result<Header> parsed = ringdisk::qcow2::parse_header(input, diagnostics, 0);
  if (!parsed.ok()) return 0;
  const Header& header = parsed.value();
  CHECK_LE(header.extensions.size(), size_t{ringdisk::limits::kQcow2HeaderExtensionsMax});
  CHECK_LE(uint64_t{header.l1_size} * ringdisk::qcow2::kEntryBytes,
           ringdisk::limits::kQcow2L1BytesMax);
  CHECK_LE(header.geometry().l1_entries_for(header.size), uint64_t{header.l1_size});
  static_cast<void>(ringdisk::qcow2::check_features(header, diagnostics, 0).ok());
  static_cast<void>(
      ringdisk::qcow2::check_places(header, ringdisk::ByteCount(1 << 20), diagnostics, 0).ok());
  ringdisk::Result<std::vector<std::byte>> encoded = ringdisk::qcow2::encode_header(header);
  if (!encoded.ok()) return 0;
  ringdisk::Result<Header> again = ringdisk::qcow2::parse_header(encoded.value(), diagnostics, 0);
  CHECK(again.ok());
  CHECK_EQ(again.value().size, header.size);
  CHECK(again.value().backing_name == header.backing_name);
  CHECK_EQ(again.value().extensions.size(), header.extensions.size());
  return 0;
}
