// SPDX-License-Identifier: Apache-2.0
// The check follows links first and compares real paths, so that neither ".." nor a symbolic link
// leads out. (A link that is changed between the check and the opening is the same user's doing who
// owns the directory.)
#include "block/open_gate.h"

#include <cctype>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <memory>

#include "base/diagnostics.h"

namespace ringdisk {
namespace {

struct FreeDeleter {
  void operator()(char* memory) const { free(memory); }
};

// Empty where the path leads nowhere.
std::string real_path(const std::string& path) {
  std::unique_ptr<char, FreeDeleter> resolved(realpath(path.c_str(), nullptr));
  return resolved ? resolved.get() : std::string();
}

std::string directory_of(const std::string& path) {
  size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

bool lies_below(std::string_view path, std::string_view directory) {
  if (directory.empty()) return false;
  if (directory == "/") return true;
  return path.starts_with(directory) && path.size() > directory.size() &&
         path[directory.size()] == '/';
}

}  // namespace

bool has_protocol_prefix(std::string_view name) {
  for (char letter : name) {
    if (letter == ':') return true;
    const bool is_scheme = isalnum(static_cast<unsigned char>(letter)) || letter == '+' ||
                           letter == '-' || letter == '.' || letter == '_';
    if (!is_scheme) return false;
  }
  return false;
}

std::string_view without_file_prefix(std::string_view name) {
  constexpr std::string_view kPrefix = "file:";
  return name.starts_with("file:/") ? name.substr(kPrefix.size()) : name;
}

Result<std::string> OpenGate::admit(Blocking, std::string_view image, std::string_view named,
                                    std::string_view format, std::string_view what) const {
  const std::string name(without_file_prefix(named));
  auto refuse = [&](ErrorKind kind, const std::string& why) {
    return diagnostics_.explain(Error::of(kind, "open gate"),
                                std::string(what) + " '" + name + "' " + why);
  };
  if (name.find('\0') != std::string::npos) return refuse(ErrorKind::kDenied, "is no file name");
  if (has_protocol_prefix(name)) {
    return refuse(ErrorKind::kDenied,
                  "is not a local file name, and images may name nothing else; "
                  "convert the image without it, or name the chain on the command line");
  }
  if (format.empty() && !any_local_path_) {
    return refuse(ErrorKind::kDenied,
                  "has no recorded format; record one with 'ringdisk rebase -u -F FORMAT -b', "
                  "or name it with backing.driver=FORMAT");
  }
  const std::string image_directory = directory_of(std::string(image));
  const std::string path = name.starts_with('/') ? name : image_directory + "/" + name;
  const std::string real = real_path(path);
  if (real.empty()) {
    return refuse(ErrorKind::kNotFound, "cannot be opened: " + errno_text(errno));
  }
  if (any_local_path_ || lies_below(real, real_path(image_directory))) return path;
  for (const std::string& directory : allowed_) {
    if (lies_below(real, real_path(directory))) return path;
  }
  return refuse(
      ErrorKind::kDenied,
      "lies outside the image's own directory; allow it with --allow-path " + directory_of(real));
}

}  // namespace ringdisk
