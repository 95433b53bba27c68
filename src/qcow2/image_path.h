// SPDX-License-Identifier: Apache-2.0
// Names that an image records of other files, as paths. Asking for files takes a Blocking token.
#pragma once

#include <sys/stat.h>

#include <string>

#include "base/blocking.h"
#include "block/storage.h"

namespace ringdisk::qcow2 {

// The local path of an image's storage; empty: it has none.
inline std::string path_of(const StorageNode& node) {
  return std::string_view(node.driver()) == "file" ? std::string(node.name()) : std::string();
}

// `named` as seen from the directory of `image`.
inline std::string path_beside(const std::string& image, const std::string& named) {
  const size_t slash = image.rfind('/');
  if (named.starts_with('/') || slash == std::string::npos) return named;
  return image.substr(0, slash + 1) + named;
}

// Whether both paths are the same existing file.
inline bool is_same_file(Blocking, const std::string& one, const std::string& other) {
  struct stat first, second;
  return stat(one.c_str(), &first) == 0 && stat(other.c_str(), &second) == 0 &&
         first.st_dev == second.st_dev && first.st_ino == second.st_ino;
}

}  // namespace ringdisk::qcow2
