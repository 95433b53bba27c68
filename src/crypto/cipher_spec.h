// SPDX-License-Identifier: Apache-2.0
// CipherSpec: how the sectors of a disk are enciphered, in the words of dm-crypt:
// cipher-mode-iv[:hash].
//
//   aes-xts-plain64         cipher aes, mode xts, the IV is the sector's number in 64 bits
//   aes-cbc-essiv:sha256    … the IV is the number enciphered under the sha256 of the key
//
// Parsing checks the shape and bounds the length; whether there is such a cipher
// make_sector_cipher() says.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace ringdisk {

struct CipherSpec {
  std::string cipher = "aes";
  std::string mode = "xts";
  std::string iv = "plain64";
  std::string iv_hash;  // of essiv alone

  // kInvalid where the text is no cipher-mode-iv[:hash] of lower-case letters, digits and '_'.
  static Result<CipherSpec> parse(std::string_view text);
  // The cipher by itself and the rest ("aes", "xts-plain64"), as the header of LUKS1 has them.
  static Result<CipherSpec> parse(std::string_view cipher, std::string_view mode_and_iv);
  std::string to_text() const;
  std::string mode_and_iv() const;

  bool operator==(const CipherSpec&) const = default;
};

}  // namespace ringdisk
