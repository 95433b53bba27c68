// SPDX-License-Identifier: Apache-2.0
// What the description of an image says about its backing image, as in QEMU:
//
//   driver=qcow2,file.filename=top.qcow2,backing.encrypt.key-secret=s1   of the one recorded
//   ...,backing.driver=luks,backing.file.filename=base.luks              another one than recorded
//   ...,backing.backing.encrypt.key-secret=s2                            further down
//   ...,backing=                  none (json: "backing": null), whatever the image records
#pragma once

#include "block/graph.h"

namespace ringdisk {

inline constexpr const char* kBackingPrefix = "backing.";

struct DescribedBacking {
  Options options;  // backing.*, without that prefix
  bool is_none = false;

  bool is_given() const { return is_none || !options.empty(); }
  // It says which file: what the image records is not looked at, and the gate not asked, since a
  // user named it.
  bool names_file() const { return options.has("file.filename") || options.has("filename"); }
};

// Takes all of it out of an image's options. kInvalid: backing=NODE, by QEMU's names of nodes.
Result<DescribedBacking> take_described_backing(Options& options, Diagnostics& diagnostics);

// Whether drivers would know the words that `described` has, for whoever is not going to open the
// image that they are about. `format`: as recorded; empty: unknown, and any format's words will do.
// kInvalid names the word.
Result<void> check_backing_words(const Graph& graph, DescribedBacking described,
                                 std::string format);

// The backing image at `path`, of the `format` that the image above records unless the description
// says otherwise, with the description's options, which the user writes with kBackingPrefix. `path`
// is not used where the description names the file.
ImageName backing_image_name(const Graph& graph, DescribedBacking described, std::string path,
                             std::string format);

}  // namespace ringdisk
