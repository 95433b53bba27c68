// SPDX-License-Identifier: Apache-2.0
// The pure half of amend: what is asked for, and whether this image can be that.
#include <algorithm>
#include <array>
#include <bit>

#include "base/diagnostics.h"
#include "block/open_gate.h"
#include "qcow2/edit/amend.h"

namespace ringdisk::qcow2 {
namespace {

constexpr uint32_t kRefcountOrderOfVersion2 = 4;

// Chosen when an image is made: every cluster is laid out by them.
constexpr std::array<std::string_view, 6> kFixedOptions = {"cluster_size",  "compression_type",
                                                           "encryption",    "extended_l2",
                                                           "preallocation", "compression_level"};

Result<void> refuse_fixed_options(const Options& options, Diagnostics& diagnostics) {
  auto refuse = [&](const std::string& key, const char* why) {
    return diagnostics.explain(Error::of(ErrorKind::kUnsupported, "amend"), "'" + key + "' " + why);
  };
  for (const auto& [key, value] : options.values()) {
    if (std::ranges::find(kFixedOptions, key) != kFixedOptions.end()) {
      return refuse(key, "is fixed when an image is made; convert the image to change it");
    }
  }
  return {};
}

Result<std::optional<uint32_t>> take_version(Options& options, Diagnostics& diagnostics) {
  const std::optional<std::string> compat = options.take("compat");
  if (!compat) return std::optional<uint32_t>();
  if (*compat == "1.1" || *compat == "v3") return std::optional<uint32_t>(3);
  if (*compat == "0.10" || *compat == "v2") return std::optional<uint32_t>(2);
  return diagnostics.explain(Error::of(ErrorKind::kInvalid, "amend"),
                             "compat is 0.10 or 1.1, not '" + *compat + "'");
}

bool is_zero(const std::vector<std::byte>& bytes) {
  return std::ranges::all_of(bytes, [](std::byte one) { return one == std::byte{0}; });
}

// What of `header` version 2 has no place for; empty: nothing.
std::string unfit_for_version2(const Header& header) {
  const uint64_t features =
      header.incompatible_features & ~(kIncompatibleDirty | kIncompatibleCorrupt);
  if (features != 0) {
    return "these features: " + names_of_features(header, FeatureSet::kIncompatible, features);
  }
  if (header.find_extension(ExtensionType::kBitmaps)) return "bitmaps; remove them first";
  if (!is_zero(header.unknown_fields)) return "additional header fields that are not known";
  return "";
}

}  // namespace

Result<Amendment> parse_amend_options(Options& options, Diagnostics& diagnostics) {
  Amendment amendment;
  RETURN_IF_ERROR(refuse_fixed_options(options, diagnostics));
  ASSIGN_OR_RETURN(amendment.version, take_version(options, diagnostics));
  if (options.has("refcount_bits")) {
    ASSIGN_OR_RETURN(uint64_t bits, options.take_size("refcount_bits", 0, diagnostics));
    if (!std::has_single_bit(bits) || bits > 64) {
      return diagnostics.explain(Error::of(ErrorKind::kInvalid, "amend"),
                                 "refcount width is a power of two and at most 64 bits");
    }
    amendment.refcount_order = static_cast<uint32_t>(std::countr_zero(bits));
  }
  if (options.has("lazy_refcounts")) {
    ASSIGN_OR_RETURN(bool lazy, options.take_bool("lazy_refcounts", false, diagnostics));
    amendment.lazy_refcounts = lazy;
  }
  if (options.has("data_file_raw")) {
    ASSIGN_OR_RETURN(bool is_raw, options.take_bool("data_file_raw", false, diagnostics));
    amendment.data_file_raw = is_raw;
  }
  amendment.data_file = options.take("data_file");
  amendment.encryption = options.take_group("encrypt");
  amendment.backing_name = options.take("backing_file");
  amendment.backing_format = options.take("backing_fmt");
  RETURN_IF_ERROR(options.check_all_taken("amending a qcow2 image", diagnostics));
  return amendment;
}

Result<void> judge_amendment(const Amendment& amendment, const Header& header,
                             Diagnostics& diagnostics, uint32_t node) {
  auto refuse = [&](ErrorKind kind, std::string why) {
    return diagnostics.explain(Error::of(kind, "amend"), node, std::move(why));
  };
  const bool is_other_backing =
      amendment.backing_name.value_or(header.backing_name) != header.backing_name ||
      amendment.backing_format.value_or(header.backing_format) != header.backing_format;
  if (is_other_backing) {
    return refuse(ErrorKind::kUnsupported,
                  "another backing file is not an amendment; 'ringdisk rebase' changes it");
  }
  const bool is_local = amendment.data_file && !amendment.data_file->empty() &&
                        !has_protocol_prefix(*amendment.data_file);
  if (amendment.data_file && !header.has_data_file()) {
    return refuse(ErrorKind::kInvalid, "data_file is only for images that have one");
  }
  if (amendment.data_file && !is_local) {
    return refuse(ErrorKind::kInvalid, "data_file is the name of a local file");
  }
  if (amendment.data_file_raw.value_or(false) && !header.data_file_is_raw()) {
    return refuse(ErrorKind::kInvalid,
                  "data_file_raw=on is for new images: what this one's data "
                  "file holds need not be its disk");
  }
  if (!amendment.encryption.empty() && header.encryption != Encryption::kLuks) {
    return refuse(ErrorKind::kInvalid, "the image is not encrypted; convert it to encrypt it");
  }
  if (amendment.version.value_or(header.version) >= 3) return {};
  if (header.version >= 3 && header.is_encrypted()) {
    return refuse(ErrorKind::kUnsupported, "compat=0.10 is not supported with encryption");
  }
  if (amendment.lazy_refcounts.value_or(false)) {
    return refuse(ErrorKind::kInvalid, "lazy_refcounts=on needs compat=1.1");
  }
  if (amendment.refcount_order.value_or(header.refcount_order) != kRefcountOrderOfVersion2) {
    return refuse(ErrorKind::kInvalid, "compat=0.10 needs refcount_bits=16");
  }
  if (std::string unfit = unfit_for_version2(header); header.version >= 3 && !unfit.empty()) {
    return refuse(ErrorKind::kUnsupported, "compat=0.10 has no room for " + unfit);
  }
  return {};
}

std::vector<std::pair<std::string, std::string>> amend_options() {
  return {
      {"backing_file=<str>", "As recorded; 'ringdisk rebase' changes it"},
      {"backing_fmt=<str>", "As recorded; 'ringdisk rebase' changes it"},
      {"compat=<str>", "Compatibility level, v2 [0.10] or v3 [1.1]"},
      {"data_file=<str>", "File name of the external data file"},
      {"data_file_raw=<bool (on/off)>", "off: the data file need not stay valid as a raw image"},
      {"lazy_refcounts=<bool (on/off)>", "Postpone refcount updates"},
      {"refcount_bits=<num>", "Width of a reference count entry in bits"},
      {"size=<size>", "Virtual disk size"},
  };
}

}  // namespace ringdisk::qcow2
