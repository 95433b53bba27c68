// SPDX-License-Identifier: Apache-2.0
// Parsing what users write: options, sizes, cache modes. All of it is input from outside: no CHECKs
// on it.
#include "block/options.h"

#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>

#include "base/diagnostics.h"

namespace ringdisk {
namespace {

struct CacheModeName {
  std::string_view text;
  CacheMode mode;
};
constexpr std::array<CacheModeName, 6> kCacheModes = {{
    {"writeback", CacheMode::kWriteback},
    {"none", CacheMode::kNone},
    {"off", CacheMode::kNone},
    {"writethrough", CacheMode::kWritethrough},
    {"directsync", CacheMode::kDirectsync},
    {"unsafe", CacheMode::kUnsafe},
}};

Error refuse(Diagnostics& diagnostics, std::string text) {
  return diagnostics.explain(Error::of(ErrorKind::kInvalid, "options"), std::move(text));
}

// One "key=value" or bare word from the front of `text`; ",," in a value stands for ','.
std::pair<std::string, std::string> take_pair(std::string_view& text) {
  std::string key, value;
  size_t at = 0;
  for (; at < text.size() && text[at] != '=' && text[at] != ','; ++at) key += text[at];
  if (at == text.size() || text[at] == ',') {
    value = "on";
  } else {
    for (++at; at < text.size(); ++at) {
      if (text[at] == ',') {
        if (at + 1 == text.size() || text[at + 1] != ',') break;
        ++at;
      }
      value += text[at];
    }
  }
  text.remove_prefix(std::min(at + 1, text.size()));
  return {key, value};
}

}  // namespace

Result<CacheMode> parse_cache_mode(std::string_view text) {
  for (const CacheModeName& known : kCacheModes) {
    if (known.text == text) return known.mode;
  }
  return Error::of(ErrorKind::kInvalid, "cache mode");
}

std::string_view name_of(CacheMode mode) {
  for (const CacheModeName& known : kCacheModes) {
    if (known.mode == mode) return known.text;
  }
  UNREACHABLE("every CacheMode has a name");
}

Result<Options> Options::parse(std::string_view text, Diagnostics& diagnostics) {
  Options options;
  while (!text.empty()) {
    auto [key, value] = take_pair(text);
    if (key.empty()) return refuse(diagnostics, "an option has no name; write key=value,key=value");
    options.set(std::move(key), std::move(value));
  }
  return options;
}

bool Options::has(std::string_view key) const { return values_.find(key) != values_.end(); }

std::optional<std::string> Options::get(std::string_view key) const {
  auto found = values_.find(key);
  if (found == values_.end()) return std::nullopt;
  return found->second;
}

std::optional<std::string> Options::take(std::string_view key) {
  auto found = values_.find(key);
  if (found == values_.end()) return std::nullopt;
  std::string value = std::move(found->second);
  values_.erase(found);
  return value;
}

Result<bool> Options::take_bool(std::string_view key, bool otherwise, Diagnostics& diagnostics) {
  std::optional<std::string> value = take(key);
  if (!value) return otherwise;
  if (*value == "on" || *value == "yes" || *value == "true" || *value == "y") return true;
  if (*value == "off" || *value == "no" || *value == "false" || *value == "n") return false;
  return refuse(diagnostics, "option '" + whole(key) + "' is on or off, not '" + *value + "'");
}

Result<uint64_t> Options::take_size(std::string_view key, uint64_t otherwise,
                                    Diagnostics& diagnostics) {
  std::optional<std::string> value = take(key);
  if (!value) return otherwise;
  Result<uint64_t> size = parse_size(*value);
  if (size.ok()) return size;
  return refuse(diagnostics,
                "option '" + whole(key) + "' is a size such as 64k or 2M, not '" + *value + "'");
}

Options Options::take_group(std::string_view prefix) {
  Options group;
  std::string dotted = std::string(prefix) + ".";
  group.prefix_ = prefix_ + dotted;
  for (auto at = values_.lower_bound(dotted);
       at != values_.end() && at->first.starts_with(dotted);) {
    group.set(at->first.substr(dotted.size()), std::move(at->second));
    at = values_.erase(at);
  }
  return group;
}

Result<void> Options::check_all_taken(std::string_view of, Diagnostics& diagnostics) const {
  if (values_.empty()) return {};
  return refuse(diagnostics,
                std::string(of) + " has no option '" + whole(values_.begin()->first) + "'");
}

// "k" -> 1024, "" and "b" -> 1; nullopt: no suffix of a size.
static std::optional<uint64_t> factor_of(std::string_view suffix) {
  if (suffix.empty()) return 1;
  constexpr std::string_view kSuffixes = "bkmgtpe";
  const char letter = static_cast<char>(suffix[0] | 0x20);
  const size_t power = kSuffixes.find(letter);
  if (suffix.size() != 1 || power == std::string_view::npos) return std::nullopt;
  return uint64_t{1} << (10 * power);
}

// What strtod allows before a number, and people write: blanks and a plus.
static std::string_view without_lead(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t");
  text.remove_prefix(begin == std::string_view::npos ? text.size() : begin);
  if (text.starts_with('+')) text.remove_prefix(1);
  return text;
}

Result<uint64_t> parse_size(std::string_view text) {
  const Error refusal = Error::of(ErrorKind::kInvalid, "size");
  const Error too_large = Error::of(ErrorKind::kLimit, "size");
  text = without_lead(text);
  // Not what else a number may begin with: a minus, "inf" and "nan".
  const bool is_fraction = text.size() > 1 && text[0] == '.';
  const char first = is_fraction ? text[1] : text.empty() ? ' ' : text[0];
  if (first < '0' || first > '9') return refusal;
  const bool is_hex = text.starts_with("0x") || text.starts_with("0X");
  const char* const end = text.data() + text.size();
  const char* const digits = text.data() + (is_hex ? 2 : 0);
  uint64_t whole = 0;
  auto parsed = std::from_chars(digits, end, whole, is_hex ? 16 : 10);
  if (parsed.ptr == digits && !is_fraction) return refusal;
  double number = 0;
  const bool has_point = !is_hex && parsed.ptr != end && *parsed.ptr == '.';
  if (has_point) {
    auto with_point = std::from_chars(text.data(), end, number, std::chars_format::fixed);
    parsed.ptr = with_point.ptr;
    if (with_point.ec != std::errc()) return refusal;
    parsed.ec = std::errc();
  }
  std::optional<uint64_t> factor = factor_of({parsed.ptr, static_cast<size_t>(end - parsed.ptr)});
  if (!factor) return refusal;
  if (parsed.ec != std::errc()) return too_large;
  if (!has_point) {  // exact
    if (whole > kOffsetMax / *factor) return too_large;
    return whole * *factor;
  }
  const double bytes = number * static_cast<double>(*factor);
  if (*factor == 1 && bytes != std::floor(bytes)) return refusal;  // a part of a byte
  if (bytes >= static_cast<double>(kOffsetMax)) return too_large;
  return static_cast<uint64_t>(bytes);
}

std::string human_size(uint64_t bytes) {
  static constexpr std::array<const char*, 7> kUnits = {"", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"};
  int exponent = 0;
  // As qemu-img: the unit in which the number, rounded to three digits, stays below 1000.
  std::frexp(static_cast<double>(bytes) / (1000.0 / 1024.0), &exponent);
  size_t unit = exponent > 0 ? static_cast<size_t>(exponent - 1) / 10 : 0;
  char text[32];
  snprintf(text, sizeof text, "%0.3g %sB",
           static_cast<double>(bytes) / static_cast<double>(uint64_t{1} << (10 * unit)),
           kUnits[unit]);
  return text;
}

}  // namespace ringdisk
