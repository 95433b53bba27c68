// SPDX-License-Identifier: Apache-2.0
// Layout and escaping (RFC 8259, section 7).
#include "app/json_text.h"

#include <bit>
#include <cstdio>

namespace ringdisk {
namespace {

constexpr size_t kIndent = 4;
constexpr uint32_t kReplacement = 0xfffd;

struct CodePoint {
  uint32_t value;
  size_t bytes;
};

// The code point at the front of `text`, which is not empty. Overlong forms, surrogates and cut
// sequences give the replacement character for one byte.
CodePoint decode_front(std::string_view text) {
  auto byte = [&](size_t at) {
    return static_cast<uint32_t>(static_cast<unsigned char>(text[at]));
  };
  const uint32_t first = byte(0);
  if (first < 0x80) return {first, 1};
  // How many bytes the first one announces; fewer than two: it cannot stand first.
  const auto bytes = static_cast<size_t>(std::countl_one(static_cast<uint8_t>(first)));
  constexpr uint32_t kLeast[] = {0, 0, 0x80, 0x800, 0x10000};
  if (bytes < 2 || bytes > 4 || text.size() < bytes) return {kReplacement, 1};
  uint32_t value = first & (0x7fu >> bytes);
  for (size_t at = 1; at < bytes; ++at) {
    if ((byte(at) & 0xc0) != 0x80) return {kReplacement, 1};
    value = value << 6 | (byte(at) & 0x3f);
  }
  const bool is_surrogate = value >= 0xd800 && value < 0xe000;
  if (value < kLeast[bytes] || value > 0x10ffff || is_surrogate) return {kReplacement, 1};
  return {value, bytes};
}

void append_unit(std::string& text, uint32_t unit) {
  char escape[8];
  snprintf(escape, sizeof escape, "\\u%04X", unit);
  text += escape;
}

void append_escaped(std::string& text, uint32_t value) {
  switch (value) {
    case '"':
      text += "\\\"";
      return;
    case '\\':
      text += "\\\\";
      return;
    case '\b':
      text += "\\b";
      return;
    case '\f':
      text += "\\f";
      return;
    case '\n':
      text += "\\n";
      return;
    case '\r':
      text += "\\r";
      return;
    case '\t':
      text += "\\t";
      return;
    default:
      break;
  }
  if (value >= 0x20 && value < 0x7f) {
    text += static_cast<char>(value);
  } else if (value < 0x10000) {
    append_unit(text, value);
  } else {
    append_unit(text, 0xd800 + ((value - 0x10000) >> 10));
    append_unit(text, 0xdc00 + ((value - 0x10000) & 0x3ff));
  }
}

}  // namespace

std::string json_quoted(std::string_view value) {
  std::string quoted = "\"";
  while (!value.empty()) {
    const CodePoint point = decode_front(value);
    append_escaped(quoted, point.value);
    value.remove_prefix(point.bytes);
  }
  return quoted + "\"";
}

void JsonText::new_line() {
  result_ += '\n';
  result_.append(depth_ * kIndent, ' ');
}

void JsonText::begin_value() {
  if (after_key_) {
    after_key_ = false;
    return;
  }
  if (!is_first_) result_ += ',';
  if (depth_ != 0) new_line();
  is_first_ = false;
}

void JsonText::begin(char bracket) {
  begin_value();
  result_ += bracket;
  ++depth_;
  is_first_ = true;
}

void JsonText::end(char bracket) {
  --depth_;
  new_line();
  result_ += bracket;
  is_first_ = false;
}

void JsonText::key(std::string_view name) {
  begin_value();
  result_ += json_quoted(name) + ": ";
  after_key_ = true;
}

void JsonText::text(std::string_view value) {
  begin_value();
  result_ += json_quoted(value);
}

void JsonText::number(uint64_t value) {
  begin_value();
  result_ += std::to_string(value);
}

void JsonText::boolean(bool value) {
  begin_value();
  result_ += value ? "true" : "false";
}

}  // namespace ringdisk
