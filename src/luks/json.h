// SPDX-License-Identifier: Apache-2.0
// Json: the metadata of a LUKS2 header as a tree that keeps what it does not know: a header that
// another program wrote is changed and written back with all its other fields, in their order.
// Numbers stay the digits they were. Parsing is nlohmann-json's, wrapped in json_throwing.cc; depth
// and count are bounded, so that trees can be walked and destroyed without care.
//
// Owned by the header it belongs to; a value, any one thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace ringdisk::luks {

inline constexpr size_t kJsonDepthMax = 16;
inline constexpr size_t kJsonValuesMax = 20'000;

struct Json {
  enum class Kind : uint8_t { kNull, kBool, kNumber, kText, kArray, kObject };

  Kind kind = Kind::kNull;
  bool boolean = false;
  std::string text;               // kText; kNumber: its digits
  std::vector<std::string> keys;  // kObject: as many as `items`, none twice
  std::vector<Json> items;        // kArray, kObject

  static Json of_text(std::string value);
  static Json of_number(uint64_t value);
  static Json object();
  static Json array();

  bool is(Kind wanted) const { return kind == wanted; }
  // The value called `key`; null where this is no object or has none.
  const Json* find(std::string_view key) const;
  Json* find(std::string_view key);
  // Replaces or appends. Only on an object; gives the value.
  Json& set(std::string_view key, Json value);
  void erase(std::string_view key);

  // The text or the number, where it is one.
  std::optional<std::string_view> as_text() const;
  std::optional<uint64_t> as_number() const;
};

// All of `text` as one value. kInvalid: it is no JSON (RFC 8259, UTF-8). kLimit: it is deeper or
// has more values than the limits above. kCorrupt: an object has a key twice, which readers
// disagree on.
Result<Json> parse_json(std::string_view text);

// Without white space.
std::string encode_json(const Json& value);

// A decimal number in whole digits, as LUKS2 writes those of 64 bits; nullopt where it is none.
std::optional<uint64_t> parse_decimal(std::string_view digits);

}  // namespace ringdisk::luks
