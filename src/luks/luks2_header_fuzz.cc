// SPDX-License-Identifier: Apache-2.0
// Any bytes as the binary front of a LUKS2 header, as either copy; where one is accepted, a whole
// copy made of it and the rest of the input as JSON is taken back.
#include "luks/luks2_binary.h"

namespace {

void try_copy(ringdisk::Bytes input, ringdisk::luks::Luks2Copy copy, uint64_t offset) {
  using ringdisk::luks::Luks2Binary;
  ringdisk::Diagnostics diagnostics;
  const ringdisk::luks::Refusal refusal(diagnostics, 0);
  const ringdisk::Result<Luks2Binary> parsed = parse_luks2_binary(input, copy, offset, refusal);
  if (!parsed.ok()) return;
  Luks2Binary binary = parsed.value();
  CHECK(ringdisk::luks::is_luks2_header_size(binary.header_bytes));
  if (binary.header_bytes == input.size()) {
    static_cast<void>(check_luks2_checksum(binary, input, refusal).ok());
    static_cast<void>(luks2_json_text(input, refusal).ok());
  }
  if (binary.header_bytes != ringdisk::luks::kLuks2HeaderBytesMin) return;
  binary.checksum_name = "sha256";
  const ringdisk::Result<std::vector<std::byte>> encoded = encode_luks2_copy(binary, copy, "{}");
  CHECK(encoded.ok());
  const ringdisk::Result<Luks2Binary> again =
      parse_luks2_binary(encoded.value(), copy, offset, refusal);
  CHECK(again.ok());
  CHECK(check_luks2_checksum(again.value(), encoded.value(), refusal).ok());
  CHECK(luks2_json_text(encoded.value(), refusal).value() == "{}");
  CHECK_EQ(again.value().sequence, binary.sequence);
  CHECK(again.value().label == binary.label && again.value().uuid == binary.uuid);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  // why: libFuzzer hands out uint8_t, our spans hold std::byte
  const ringdisk::Bytes input(reinterpret_cast<const std::byte*>(bytes), size);
  try_copy(input, ringdisk::luks::Luks2Copy::kFirst, 0);
  try_copy(input, ringdisk::luks::Luks2Copy::kSecond, ringdisk::luks::kLuks2HeaderBytesMin);
  return 0;
}
