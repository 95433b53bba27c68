// SPDX-License-Identifier: Apache-2.0
// Changing what an image was made with. All options are judged by the image's header first; then
// the steps follow, each an edit of its own, in an order in which each finds what it needs:
//
//   data_file  ─>  compat=1.1  ─>  refcount_bits  ─>  lazy_refcounts  ─>  compat=0.10
//
//   data_file_name.h  (header)   refcount_width.h   (header)   zero_expansion.h and the header
//
// A crash or an error leaves the image after one of them, or before. What is not an option here is
// refused by name; so is another backing file, as qemu-img does it: that is what rebase is for.
#pragma once

#include <optional>
#include <string>

#include "block/format_admin.h"
#include "qcow2/layout/header.h"

namespace ringdisk {
class DataEncryption;
}

namespace ringdisk::qcow2 {

// What is asked for; what is not stays.
struct Amendment {
  std::optional<uint32_t> version;
  std::optional<uint32_t> refcount_order;
  std::optional<bool> lazy_refcounts;
  std::optional<std::string> backing_name, backing_format;
  std::optional<std::string> data_file;
  std::optional<bool> data_file_raw;
  Options encryption;  // encrypt.*, without that prefix
};

// kInvalid, with a note, for what is wrong or cannot be amended.
Result<Amendment> parse_amend_options(Options& options, Diagnostics& diagnostics);

// Whether `amendment` can be made of an image with `header`, as far as the header tells. kInvalid,
// kUnsupported.
Result<void> judge_amendment(const Amendment& amendment, const Header& header,
                             Diagnostics& diagnostics, uint32_t node);

// FormatAdmin::amend_options and amend.
std::vector<std::pair<std::string, std::string>> amend_options();
// `encryption` may be null: then encrypt.* is refused.
Task<void> amend_image(Graph& graph, AmendRequest request,
                       const DataEncryption* encryption = nullptr);

}  // namespace ringdisk::qcow2
