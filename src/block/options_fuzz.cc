// SPDX-License-Identifier: Apache-2.0
// Options, sizes and cache modes as users (and scripts, and anybody who may fill in a field) write
// them: any bytes are either understood or refused, and what is understood prints and parses again.
#include "block/options.h"

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/check.h"
#include "base/diagnostics.h"

namespace ringdisk {
namespace {

// The description again, as it would be written: commas in values doubled.
std::string text_of(const Options& options) {
  std::string text;
  for (const auto& [key, value] : options.values()) {
    if (!text.empty()) text += ',';
    text += key + "=";
    for (char letter : value) text += letter == ',' ? std::string(",,") : std::string(1, letter);
  }
  return text;
}

void try_text(std::string_view text) {
  Diagnostics diagnostics;
  Result<uint64_t> size = parse_size(text);
  if (size.ok()) {
    CHECK_LE(size.value(), kOffsetMax);
    CHECK_EQ(parse_size(std::to_string(size.value())).value(), size.value());
    CHECK(!human_size(size.value()).empty());
  }
  Result<CacheMode> mode = parse_cache_mode(text);
  if (mode.ok()) CHECK(parse_cache_mode(name_of(mode.value())).value() == mode.value());
  Result<Options> options = Options::parse(text, diagnostics);
  if (!options.ok()) {
    CHECK(!diagnostics.describe(options.error()).empty());
    return;
  }
  Result<Options> again = Options::parse(text_of(options.value()), diagnostics);
  CHECK(again.ok() && again.value().values() == options.value().values());
  static_cast<void>(options.value().take_size("size", 0, diagnostics).ok());
  static_cast<void>(options.value().take_bool("read-only", false, diagnostics).ok());
  Options file = options.value().take_group("file");
  CHECK(!options.value().has("file.filename"));
  static_cast<void>(file.check_all_taken("file", diagnostics).ok());
}

}  // namespace
}  // namespace ringdisk

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  std::span<const uint8_t> input(bytes, size);
  ringdisk::try_text(ringdisk::as_text(std::as_bytes(input)));
  return 0;
}
