// SPDX-License-Identifier: Apache-2.0
// Base64 (RFC 4648, section 4): how JSON headers record salts, and users write secrets. Pure.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"

namespace ringdisk {

std::string encode_base64(Bytes bytes);

// The most bytes that `length` letters stand for.
inline constexpr size_t base64_bytes_max(size_t length) { return length / 4 * 3; }

// Fills the front of `target`, of base64_bytes_max(text.size()) at least, and gives how many bytes
// there are. nullopt: it is no base64 with its padding, whole groups of four letters.
std::optional<size_t> decode_base64(std::string_view text, MutableBytes target);

// As above into memory of its own; not for secrets.
std::optional<std::vector<std::byte>> decode_base64(std::string_view text);

}  // namespace ringdisk
