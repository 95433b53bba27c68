// SPDX-License-Identifier: Apache-2.0
// The part of a description that is about the backing image.
#include "block/described_backing.h"

#include <algorithm>

#include "base/diagnostics.h"
#include "block/node_words.h"

namespace ringdisk {

Result<DescribedBacking> take_described_backing(Options& options, Diagnostics& diagnostics) {
  DescribedBacking described;
  described.options = options.take_group("backing");
  const std::optional<std::string> node = options.take("backing");
  if (!node) return described;
  const Error error = Error::of(ErrorKind::kInvalid, "open");
  if (!node->empty()) {
    return diagnostics.explain(error, "nodes have no names here, so backing=" + *node +
                                          " names nothing; write backing.file.filename=FILE");
  }
  if (!described.options.empty()) {
    return diagnostics.explain(error, "backing= is for none; 'backing." +
                                          described.options.values().begin()->first +
                                          "' has no meaning then");
  }
  described.is_none = true;
  return described;
}

namespace {

bool is_known(const DriverWords& words, std::string_view key) {
  if (words.empty()) return true;
  return std::ranges::any_of(words, [key](const std::string& word) {
    return word == key || (word.ends_with('.') && key.starts_with(word));
  });
}

template <class Driver>
bool is_known_to_any(const std::vector<Driver>& drivers, std::string_view key) {
  return std::ranges::any_of(drivers,
                             [key](const Driver& driver) { return is_known(driver.words, key); });
}

// The words of one image after the other, from the top down.
class WordJudge {
 public:
  explicit WordJudge(const Graph& graph) : graph_(graph) {}

  Result<void> judge(DescribedBacking described, std::string format) {
    Diagnostics& diagnostics = graph_.world().diagnostics;
    for (std::string prefix = kBackingPrefix; described.is_given(); prefix += kBackingPrefix) {
      Options& options = described.options;
      const std::string driver = options.take("driver").value_or(format);
      RETURN_IF_ERROR(take_policy(options, DevicePolicy(), diagnostics));
      ASSIGN_OR_RETURN(DescribedBacking below, take_described_backing(options, diagnostics));
      RETURN_IF_ERROR(judge_image(std::move(options), driver, prefix));
      described = std::move(below);
      format.clear();
    }
    return {};
  }

 private:
  Result<void> judge_image(Options options, const std::string& driver, const std::string& prefix) {
    const StorageDriver* bare = graph_.find_format(driver) ? nullptr : graph_.find_storage(driver);
    if (bare) {
      RETURN_IF_ERROR(take_read_only_words(options));
      return judge_words(options, bare->name, bare->words, prefix);
    }
    Options file = options.take_group("file");
    RETURN_IF_ERROR(judge_node_words(options, file));
    const std::string file_driver = file.take("driver").value_or("file");
    const StorageDriver* storage = graph_.find_storage(file_driver);
    if (!storage) return unknown_driver(file_driver);
    RETURN_IF_ERROR(judge_words(file, storage->name, storage->words, prefix + "file."));
    if (driver.empty()) return judge_words_of_any(options, prefix);
    const FormatDriver* format = graph_.find_format(driver);
    if (!format) return unknown_driver(driver);
    return judge_words(options, format->name, format->words, prefix);
  }
  Result<void> judge_node_words(Options& options, Options& file) {
    move_node_words(options, file);
    return take_read_only_words(file);
  }
  Result<void> take_read_only_words(Options& storage) {
    OpenMode mode;
    mode.read_only = true;  // as images below are opened
    return take_node_words(storage, mode, graph_.world().diagnostics);
  }
  Result<void> judge_words(const Options& options, const std::string& driver,
                           const DriverWords& words, const std::string& prefix) {
    for (const auto& [key, value] : options.values()) {
      if (!is_known(words, key)) return refuse(driver + " has no option '" + prefix + key + "'");
    }
    return {};
  }
  Result<void> judge_words_of_any(const Options& options, const std::string& prefix) {
    const Drivers& drivers = graph_.drivers();
    for (const auto& [key, value] : options.values()) {
      if (is_known_to_any(drivers.formats, key) || is_known_to_any(drivers.storages, key)) continue;
      return refuse("no driver has an option '" + prefix + key + "'");
    }
    return {};
  }
  Error unknown_driver(const std::string& name) {
    return graph_.world().diagnostics.explain(Error::of(ErrorKind::kUnsupported, "open"),
                                              "there is no driver '" + name + "'");
  }
  Error refuse(std::string why) {
    return graph_.world().diagnostics.explain(Error::of(ErrorKind::kInvalid, "open"),
                                              std::move(why));
  }

  const Graph& graph_;
};

}  // namespace

Result<void> check_backing_words(const Graph& graph, DescribedBacking described,
                                 std::string format) {
  return WordJudge(graph).judge(std::move(described), std::move(format));
}

ImageName backing_image_name(const Graph& graph, DescribedBacking described, std::string path,
                             std::string format) {
  ImageName name;
  name.prefix = kBackingPrefix;
  if (described.options.empty()) {
    name.filename = std::move(path);
    name.format = std::move(format);
    return name;
  }
  const std::string driver = described.options.get("driver").value_or(format);
  const bool names_file = described.names_file();
  name.options = std::move(described.options);
  if (!driver.empty()) name.options.set("driver", driver);
  if (names_file) return name;
  const bool is_bare = graph.find_storage(driver) && !graph.find_format(driver);
  name.options.set(is_bare ? "filename" : "file.filename", std::move(path));
  return name;
}

}  // namespace ringdisk
