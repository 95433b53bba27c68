// SPDX-License-Identifier: Apache-2.0
// Three bytes, four letters. Letters are told apart by comparisons, not by a table, so that
// decoding a secret looks up no memory by its value.
#include "crypto/base64.h"

#include "base/check.h"

namespace ringdisk {
namespace {

constexpr std::string_view kLetters =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
constexpr uint32_t kNoLetter = 64;

uint32_t value_of(char letter) {
  if (letter >= 'A' && letter <= 'Z') return static_cast<uint32_t>(letter - 'A');
  if (letter >= 'a' && letter <= 'z') return static_cast<uint32_t>(letter - 'a') + 26;
  if (letter >= '0' && letter <= '9') return static_cast<uint32_t>(letter - '0') + 52;
  if (letter == '+') return 62;
  return letter == '/' ? 63 : kNoLetter;
}

}  // namespace

std::string encode_base64(Bytes bytes) {
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  for (size_t at = 0; at < bytes.size(); at += 3) {
    const size_t count = std::min<size_t>(3, bytes.size() - at);
    uint32_t group = 0;
    for (size_t i = 0; i < 3; ++i) {
      group = group << 8 | (i < count ? static_cast<uint32_t>(bytes[at + i]) : 0);
    }
    for (size_t i = 0; i < 4; ++i) {
      text += i <= count ? kLetters[group >> (18 - 6 * i) & 63] : '=';
    }
  }
  return text;
}

std::optional<size_t> decode_base64(std::string_view text, MutableBytes target) {
  if (text.size() % 4 != 0) return std::nullopt;
  CHECK_GE(target.size(), base64_bytes_max(text.size()));
  size_t padding = 0;
  while (padding < 2 && padding < text.size() && text[text.size() - 1 - padding] == '=') ++padding;
  const size_t bytes = base64_bytes_max(text.size()) - padding;
  for (size_t at = 0; at < text.size(); at += 4) {
    uint32_t group = 0;
    for (size_t i = 0; i < 4; ++i) {
      const bool is_padding = at + i >= text.size() - padding;
      const uint32_t value = is_padding ? 0 : value_of(text[at + i]);
      if (value == kNoLetter) return std::nullopt;
      group = group << 6 | value;
    }
    const size_t begin = at / 4 * 3;
    for (size_t i = 0; i < 3; ++i) {
      const auto byte = static_cast<std::byte>(group >> (16 - 8 * i) & 255);
      if (begin + i < bytes) {
        target[begin + i] = byte;
      } else if (byte != std::byte{0}) {
        return std::nullopt;  // bits that no byte has
      }
    }
  }
  return bytes;
}

std::optional<std::vector<std::byte>> decode_base64(std::string_view text) {
  std::vector<std::byte> bytes(base64_bytes_max(text.size()));
  const std::optional<size_t> size = decode_base64(text, bytes);
  if (!size) return std::nullopt;
  bytes.resize(*size);
  return bytes;
}

}  // namespace ringdisk
