// SPDX-License-Identifier: Apache-2.0
// Options and backing of new images, and the removal of what did not become one.
#include "app/create_image.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "app/images.h"
#include "base/diagnostics.h"
#include "runtime/blocking_pool.h"

namespace ringdisk {
namespace {

CreateRequest request_of(const NewImage& image) {
  CreateRequest request;
  request.storage.set("filename", image.filename);
  request.size = image.size;
  request.options = image.options;
  request.backing_name = image.backing_name;
  request.backing_format = image.backing_format;
  return request;
}

}  // namespace

Result<Options> new_image_options(const std::vector<std::string>& words, Diagnostics& diagnostics) {
  Options all;
  for (const std::string& word : words) {
    ASSIGN_OR_RETURN(Options options, Options::parse(word, diagnostics));
    for (const auto& [key, value] : options.values()) all.set(key, value);
  }
  return all;
}

Result<void> take_backing(const Arguments& arguments, std::string_view key, NewImage& image,
                          Diagnostics& diagnostics) {
  image.backing_name = image.options.take("backing_file").value_or("");
  image.backing_format = image.options.take("backing_fmt").value_or("");
  if (std::optional<std::string> name = arguments.value(key)) image.backing_name = *name;
  if (std::optional<std::string> format = arguments.value("F")) image.backing_format = *format;
  if (image.backing_name.empty() && !image.backing_format.empty()) {
    return usage_error(
        diagnostics, "-F names the format of a backing image; name one with -" + std::string(key));
  }
  if (!image.backing_name.empty() && image.backing_format.empty()) {
    return usage_error(diagnostics, image.filename + ": backing file '" + image.backing_name +
                                        "' needs a format: say -F raw or -F qcow2");
  }
  return {};
}

Task<ByteCount> backing_size(Program& program, const NewImage& image) {
  const std::string path = path_beside(image.filename, image.backing_name);
  ImageName name =
      co_await parse_image_name(path, image.backing_format, false, program.diagnostics());
  OpenMode mode;
  mode.read_only = mode.no_backing = mode.keep_clean = true;
  ImageDescription description = co_await describe_image(program, std::move(name), mode);
  co_return description.virtual_size;
}

bool wants_option_help(const std::vector<std::string>& words) {
  auto asks = [](const std::string& word) { return word == "help" || word == "?"; };
  return std::any_of(words.begin(), words.end(), asks);
}

std::string option_help(const FormatAdmin& admin) {
  std::string text = "Supported options:\n";
  for (const auto& [option, meaning] : admin.create_options()) {
    std::string line = "  " + option;
    line.resize(std::max<size_t>(line.size(), 25), ' ');
    text += line + "- " + meaning + "\n";
  }
  return text;
}

std::string formatting_line(const NewImage& image) {
  std::string line = "Formatting '" + image.filename + "', fmt=" + std::string(image.admin->name());
  for (const auto& [key, value] : image.admin->creation_summary(request_of(image))) {
    line += " " + key + "=" + value;
  }
  return line + "\n";
}

Task<void> create_image(Program& program, const NewImage& image) {
  // An image that backs itself could never be opened, and what it held would be lost.
  auto kind = [&](Blocking token) -> Result<PathKind> {
    const std::string backing = path_beside(image.filename, image.backing_name);
    if (!image.backing_name.empty() && is_same_file(token, backing, image.filename)) {
      return usage_error(program.diagnostics(), image.filename + ": is its own backing file");
    }
    return kind_of_path(token, image.filename);
  };
  PathKind before = co_await run_blocking(program.world.blocking, kind);
  Graph graph = program.graph();
  CreateRequest request = request_of(image);
  Result<void> created = co_await image.admin->create(graph, std::move(request)).result();
  // What was there before stays: its user may hold it locked, and that is why we failed.
  if (!created.ok() && before == PathKind::kAbsent) {
    Result<void> removed = co_await remove_file(program, image.filename).result();
    static_cast<void>(removed.ok());
  }
  co_await std::move(created);
}

Task<void> remove_file(Program& program, const std::string& filename) {
  auto remove = [&](Blocking token) -> Result<void> {
    if (kind_of_path(token, filename) != PathKind::kRegularFile) return {};
    if (unlink(filename.c_str()) != 0) return Error::from_errno(errno, "remove");
    return {};
  };
  co_await run_blocking(program.world.blocking, remove);
}

}  // namespace ringdisk
