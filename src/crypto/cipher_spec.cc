// SPDX-License-Identifier: Apache-2.0
// The text of a cipher, apart and together.
#include "crypto/cipher_spec.h"

#include <algorithm>

namespace ringdisk {
namespace {

// LUKS1 has 32 bytes for each half of it; nothing real comes near.
constexpr size_t kTextBytesMax = 64;

// `more`: another letter that the word may have.
bool is_word(std::string_view text, char more = '_') {
  auto is_letter = [more](char letter) {
    return (letter >= 'a' && letter <= 'z') || (letter >= '0' && letter <= '9') || letter == '_' ||
           letter == more;
  };
  return !text.empty() && text.size() <= kTextBytesMax &&
         std::all_of(text.begin(), text.end(), is_letter);
}

// What stands before the first `separator`, which is taken away too; `rest` keeps what follows.
std::string_view take_word(std::string_view& rest, char separator) {
  const size_t end = rest.find(separator);
  std::string_view word = rest.substr(0, end);
  rest = end == std::string_view::npos ? std::string_view() : rest.substr(end + 1);
  return word;
}

}  // namespace

Result<CipherSpec> CipherSpec::parse(std::string_view text) {
  std::string_view cipher = take_word(text, '-');
  return parse(cipher, text);
}

Result<CipherSpec> CipherSpec::parse(std::string_view cipher, std::string_view mode_and_iv) {
  const Error error = Error::of(ErrorKind::kInvalid, "parse cipher");
  CipherSpec spec;
  std::string_view iv = mode_and_iv;
  spec.cipher = cipher;
  spec.mode = take_word(iv, '-');
  const bool has_hash = iv.find(':') != std::string_view::npos;
  spec.iv = take_word(iv, ':');
  spec.iv_hash = iv;
  if (!is_word(spec.cipher) || !is_word(spec.mode)) return error;
  if (spec.mode == "ecb" && spec.iv.empty() && !has_hash) return spec;
  if (!is_word(spec.iv) || has_hash != is_word(spec.iv_hash, '-')) return error;  // sha3-256
  return spec;
}

std::string CipherSpec::mode_and_iv() const {
  std::string text = mode;
  if (!iv.empty()) text += "-" + iv;
  if (!iv_hash.empty()) text += ":" + iv_hash;
  return text;
}

std::string CipherSpec::to_text() const { return cipher + "-" + mode_and_iv(); }

}  // namespace ringdisk
