// SPDX-License-Identifier: Apache-2.0
// Feature bits and their names (format specification, "Feature name table"), and what this program
// cannot read.
//
//   an entry of the table, 48 bytes:  | set (1) | bit (1) | name, padded with zeros (46) |
#include <algorithm>
#include <array>
#include <string_view>

#include "base/diagnostics.h"
#include "qcow2/layout/header.h"

namespace ringdisk::qcow2 {
namespace {

constexpr size_t kNameEntryBytes = 48;
constexpr size_t kNameBytes = 46;

struct KnownFeature {
  FeatureSet set;
  uint8_t bit;
  std::string_view name;
};
constexpr std::array kKnownFeatures = {
    KnownFeature{FeatureSet::kIncompatible, 0, "dirty bit"},
    KnownFeature{FeatureSet::kIncompatible, 1, "corrupt bit"},
    KnownFeature{FeatureSet::kIncompatible, 2, "external data file"},
    KnownFeature{FeatureSet::kIncompatible, 3, "compression type"},
    KnownFeature{FeatureSet::kIncompatible, 4, "extended L2 entries"},
    KnownFeature{FeatureSet::kCompatible, 0, "lazy refcounts"},
    KnownFeature{FeatureSet::kAutoclear, 0, "bitmaps"},
    KnownFeature{FeatureSet::kAutoclear, 1, "raw external data"},
};

// A name out of an image: only what a terminal can print.
std::string printable(std::string_view name) {
  name = name.substr(0, name.find('\0'));
  std::string text(name);
  std::replace_if(
      text.begin(), text.end(), [](char c) { return c < ' ' || c > '~'; }, '?');
  return text;
}

std::string name_in_image(const Header& header, FeatureSet set, uint32_t bit) {
  const HeaderExtension* table = header.find_extension(ExtensionType::kFeatureNames);
  if (!table) return "";
  Bytes rest(table->content);
  for (; rest.size() >= kNameEntryBytes; rest = rest.subspan(kNameEntryBytes)) {
    bool matches = static_cast<uint8_t>(rest[0]) == static_cast<uint8_t>(set) &&
                   static_cast<uint8_t>(rest[1]) == bit;
    if (matches) return printable(as_text(rest.subspan(2, kNameBytes)));
  }
  return "";
}

}  // namespace

std::string name_of_feature(const Header& header, FeatureSet set, uint32_t bit) {
  if (std::string name = name_in_image(header, set, bit); !name.empty()) return name;
  for (const KnownFeature& known : kKnownFeatures) {
    if (known.set == set && known.bit == bit) return std::string(known.name);
  }
  return "bit " + std::to_string(bit);
}

std::string names_of_features(const Header& header, FeatureSet set, uint64_t bits) {
  std::string names;
  for (uint32_t bit = 0; bit < 64; ++bit) {
    if ((bits >> bit & 1) == 0) continue;
    if (!names.empty()) names += ", ";
    names += "'" + name_of_feature(header, set, bit) + "'";
  }
  return names;
}

std::vector<std::byte> feature_name_table() {
  std::vector<std::byte> table;
  for (const KnownFeature& known : kKnownFeatures) {
    size_t start = table.size();
    table.resize(start + kNameEntryBytes);
    table[start] = static_cast<std::byte>(known.set);
    table[start + 1] = static_cast<std::byte>(known.bit);
    Bytes name = as_bytes(known.name);
    copy_bytes(name, MutableBytes(table).subspan(start + 2, name.size()));
  }
  return table;
}

Result<void> check_features(const Header& header, Diagnostics& diagnostics, uint32_t node) {
  auto refuse = [&](std::string why) {
    return diagnostics.explain(Error::of(ErrorKind::kUnsupported, "open"), node, std::move(why));
  };
  if (header.encryption == Encryption::kAes) {
    return refuse(
        "legacy AES encryption (crypt_method 1) is not supported; convert the image with "
        "an old qemu-img first");
  }
  if (header.encryption == Encryption::kLuks && header.has_data_file()) {
    return refuse("LUKS encryption together with an external data file is not supported");
  }
  const uint64_t unknown = header.incompatible_features & ~kIncompatibleKnown;
  if (unknown != 0) {
    return refuse("the image uses incompatible features that are not known: " +
                  names_of_features(header, FeatureSet::kIncompatible, unknown));
  }
  return {};
}

}  // namespace ringdisk::qcow2
