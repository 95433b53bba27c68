// SPDX-License-Identifier: Apache-2.0
// OpenGate: the one place that decides whether an image may open another file. An image never opens
// a file on its own: what its header names as backing or data file is hostile input. The default
// lets in local files with a recorded format that lie in the directory of the image that names
// them, or below; `--allow-path DIR` (repeatable, and RINGDISK_ALLOW_PATH) widens that. Protocol
// prefixes ("nbd:", "http:", "json:", "fat:") never pass; "file:/dir/name" is /dir/name, as QEMU
// has it, and is judged as that. Under the names qemu-img, qemu-nbd … any
// local path passes. What the user names on the command line does not come here.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/blocking.h"
#include "base/result.h"

namespace ringdisk {

class Diagnostics;

class OpenGate {
 public:
  explicit OpenGate(Diagnostics& diagnostics) : diagnostics_(diagnostics) {}

  void allow_below(std::string directory) { allowed_.push_back(std::move(directory)); }
  void allow_any_local_path() { any_local_path_ = true; }

  // The path to open for the file that `image` (a path) names as `named`, resolved against image's
  // directory, links followed before the check. `format` is what the image records for it; empty:
  // refused unless any local path is allowed (then it is probed). Refusals (kDenied) say what would
  // let it in, and call it `what`.
  Result<std::string> admit(Blocking token, std::string_view image, std::string_view named,
                            std::string_view format, std::string_view what = "backing file") const;

 private:
  Diagnostics& diagnostics_;
  std::vector<std::string> allowed_;
  bool any_local_path_ = false;
};

// Whether `name` begins with a protocol: letters, digits, '+', '-', '.' and then ':', before any
// '/'.
bool has_protocol_prefix(std::string_view name);
// "file:/dir/name" without its prefix, everything else as it is. (QEMU looks for "file:name" where
// the program was started, so that it means no file in particular.)
std::string_view without_file_prefix(std::string_view name);

}  // namespace ringdisk
