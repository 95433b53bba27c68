// SPDX-License-Identifier: Apache-2.0
// What an image says of itself beyond what every image has, as `info` shows it.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace ringdisk {

// One line of "Format specific information" / one key of "format-specific": {"data": {…}}. A nested
// object has children, a list has children without keys.
struct DescribedField {
  // As qemu-img's JSON has it ("lazy-refcounts"); the text form replaces '-' by ' '.
  std::string key;
  enum class Kind : uint8_t { kText, kNumber, kBool, kObject, kList } kind = Kind::kText;
  std::string text;
  uint64_t number = 0;  // kBool: 0 or 1
  std::vector<DescribedField> children;
};

inline DescribedField text_field(std::string key, std::string text) {
  DescribedField field;
  field.key = std::move(key);
  field.text = std::move(text);
  return field;
}

inline DescribedField number_field(std::string key, uint64_t number) {
  DescribedField field;
  field.key = std::move(key);
  field.kind = DescribedField::Kind::kNumber;
  field.number = number;
  return field;
}

inline DescribedField bool_field(std::string key, bool value) {
  DescribedField field = number_field(std::move(key), value ? 1 : 0);
  field.kind = DescribedField::Kind::kBool;
  return field;
}

}  // namespace ringdisk
