// SPDX-License-Identifier: Apache-2.0
// Looking into trees of JSON, and writing them.
#include "luks/json.h"

#include <algorithm>
#include <charconv>

#include "base/check.h"

namespace ringdisk::luks {
namespace {

void append_quoted(std::string& out, std::string_view text) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  out += '"';
  for (char letter : text) {
    const auto byte = static_cast<unsigned char>(letter);
    if (letter == '"' || letter == '\\') {
      out += '\\';
      out += letter;
    } else if (byte < 0x20) {
      out += "\\u00";
      out += kDigits[byte >> 4];
      out += kDigits[byte & 15];
    } else {
      out += letter;
    }
  }
  out += '"';
}

// As deep as the tree, which the parser bounds.
void append(std::string& out, const Json& value) {
  switch (value.kind) {
    case Json::Kind::kNull:
      out += "null";
      return;
    case Json::Kind::kBool:
      out += value.boolean ? "true" : "false";
      return;
    case Json::Kind::kNumber:
      out += value.text;
      return;
    case Json::Kind::kText:
      append_quoted(out, value.text);
      return;
    case Json::Kind::kArray:
    case Json::Kind::kObject:
      break;
  }
  const bool is_object = value.is(Json::Kind::kObject);
  out += is_object ? '{' : '[';
  for (size_t i = 0; i < value.items.size(); ++i) {
    if (i != 0) out += ',';
    if (is_object) {
      append_quoted(out, value.keys[i]);
      out += ':';
    }
    append(out, value.items[i]);
  }
  out += is_object ? '}' : ']';
}

}  // namespace

Json Json::of_text(std::string value) {
  Json json;
  json.kind = Kind::kText;
  json.text = std::move(value);
  return json;
}

Json Json::of_number(uint64_t value) {
  Json json;
  json.kind = Kind::kNumber;
  json.text = std::to_string(value);
  return json;
}

Json Json::object() {
  Json json;
  json.kind = Kind::kObject;
  return json;
}

Json Json::array() {
  Json json;
  json.kind = Kind::kArray;
  return json;
}

const Json* Json::find(std::string_view key) const {
  if (kind != Kind::kObject) return nullptr;
  const auto found = std::find(keys.begin(), keys.end(), key);
  return found == keys.end() ? nullptr : &items[static_cast<size_t>(found - keys.begin())];
}

Json* Json::find(std::string_view key) { return const_cast<Json*>(std::as_const(*this).find(key)); }

Json& Json::set(std::string_view key, Json value) {
  CHECK(kind == Kind::kObject);
  if (Json* there = find(key)) return *there = std::move(value);
  keys.emplace_back(key);
  return items.emplace_back(std::move(value));
}

void Json::erase(std::string_view key) {
  const auto found = std::find(keys.begin(), keys.end(), key);
  if (found == keys.end()) return;
  items.erase(items.begin() + (found - keys.begin()));
  keys.erase(found);
}

std::optional<std::string_view> Json::as_text() const {
  if (kind != Kind::kText) return std::nullopt;
  return text;
}

std::optional<uint64_t> Json::as_number() const {
  return kind == Kind::kNumber ? parse_decimal(text) : std::nullopt;
}

std::string encode_json(const Json& value) {
  std::string out;
  append(out, value);
  return out;
}

std::optional<uint64_t> parse_decimal(std::string_view digits) {
  uint64_t value = 0;
  if (digits.empty() || digits[0] < '0' || digits[0] > '9') return std::nullopt;
  const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (parsed.ec != std::errc() || parsed.ptr != digits.data() + digits.size()) return std::nullopt;
  return value;
}

}  // namespace ringdisk::luks
