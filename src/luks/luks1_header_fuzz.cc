// SPDX-License-Identifier: Apache-2.0
// Any bytes as a LUKS1 header: nothing beyond them is read; what is accepted is within its bounds
// and comes back from its own encoding.
#include "luks/luks1_header.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  using ringdisk::luks::Luks1Header;
  // why: libFuzzer hands out uint8_t, our spans hold std::byte
  const ringdisk::Bytes input(reinterpret_cast<const std::byte*>(bytes), size);
  ringdisk::Diagnostics diagnostics;
  const ringdisk::luks::Refusal refusal(diagnostics, 0);
  const ringdisk::Result<Luks1Header> parsed = parse_luks1_header(input, refusal);
  if (!parsed.ok()) return 0;
  const ringdisk::luks::VolumeFacts facts = facts_of(parsed.value());
  CHECK_LE(facts.slots.size(), size_t{ringdisk::luks::kLuks1Slots});
  for (const ringdisk::luks::KeySlot& slot : facts.slots) {
    CHECK_LE(slot.key_bytes, ringdisk::luks::kKeyBytesMax);
    CHECK_GE(slot.area.value(), ringdisk::luks::kLuks1HeaderBytes);
  }
  const auto encoded = encode_luks1_header(parsed.value());
  const ringdisk::Result<Luks1Header> again = parse_luks1_header(encoded, refusal);
  CHECK(again.ok());
  CHECK(encode_luks1_header(again.value()) == encoded);
  return 0;
}
