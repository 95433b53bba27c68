// SPDX-License-Identifier: Apache-2.0
// From names to nodes. The chain being opened is a list of links on the stack of coroutines, by
// which loops and depth are found: a backing image that is already open above it in the same chain
// is refused.
#include "block/graph.h"

#include <sys/stat.h>

#include <algorithm>

#include "base/diagnostics.h"
#include "base/limits.h"
#include "base/log.h"
#include "block/described_backing.h"
#include "block/node_words.h"
#include "runtime/blocking_pool.h"
#include "runtime/shard.h"

namespace ringdisk {

// An image of the chain that is being opened: what identifies its file on this machine, for finding
// loops, and what its description says of the image below.
struct Graph::ChainLink {
  const ChainLink* above = nullptr;
  std::string path;      // empty: not a local file
  bool is_part = false;  // it lies somewhere in that file, in which others may lie too
  uint32_t depth = 0;
  std::string prefix;  // of its options
  DescribedBacking below;
};

namespace {

constexpr size_t kProbeBytes = 4096;

bool is_same_file(Blocking, const std::string& a, const std::string& b) {
  struct stat first, second;
  return stat(a.c_str(), &first) == 0 && stat(b.c_str(), &second) == 0 &&
         first.st_dev == second.st_dev && first.st_ino == second.st_ino;
}

template <class Driver>
const Driver* find_by_name(const std::vector<Driver>& drivers, std::string_view name) {
  auto is_it = [&](const Driver& driver) { return driver.name == name; };
  auto found = std::find_if(drivers.begin(), drivers.end(), is_it);
  return found == drivers.end() ? nullptr : &*found;
}

// Whether what is said of the image below `format` can be meant.
Result<void> check_described(const DescribedBacking& described, const OpenedFormat& format,
                             Diagnostics& diagnostics) {
  if (!described.is_given()) return {};
  const std::string word =
      described.is_none ? "backing" : "backing." + described.options.values().begin()->first;
  const Error error = Error::of(ErrorKind::kInvalid, "open");
  if (format.node->limits().maps_directly) {
    return diagnostics.explain(error, "the format " + std::string(format.node->driver()) +
                                          " has no backing images; leave out '" + word + "'");
  }
  if (!format.backing_name.empty() || described.is_none || described.names_file()) return {};
  return diagnostics.explain(error, "has no backing image, of which '" + word +
                                        "' speaks; name one with backing.file.filename=FILE");
}

// driver=raw where a storage is meant: a part of another one.
bool is_part_of_file(const ImageParts& parts) { return parts.storage.get("driver") == "raw"; }

}  // namespace

std::string ImageName::text() const {
  if (options.empty()) return filename;
  if (std::optional<std::string> named = options.get("file.filename")) return *named;
  if (std::optional<std::string> named = options.get("filename")) return *named;
  return options.get("driver").value_or("image");
}

std::string ImageParts::path() const {
  const std::string driver = storage.get("driver").value_or("file");
  if (driver == "file") return storage.get("filename").value_or("");
  if (!is_part_of_file(*this) || storage.get("file.driver").value_or("file") != "file") return "";
  return storage.get("file.filename").value_or("");
}

Result<ImageParts> Graph::take_apart(ImageName name) const {
  ImageParts parts;
  parts.format = std::move(name.format);
  if (name.options.empty()) {
    parts.storage.set("filename", std::move(name.filename));
    return parts;
  }
  const std::optional<std::string> driver = name.options.take("driver");
  if (driver && find_storage(*driver) && !find_format(*driver)) {
    parts.storage = std::move(name.options);
    parts.storage.set("driver", *driver);
    parts.format = "raw";
    parts.is_bare_storage = true;
    return parts;
  }
  if (driver && !find_format(*driver)) {
    return world_.diagnostics.explain(Error::of(ErrorKind::kUnsupported, "open"),
                                      "there is no driver '" + *driver + "'");
  }
  if (driver) parts.format = *driver;
  parts.storage = name.options.take_group("file");
  parts.options = std::move(name.options);
  if (!parts.storage.empty()) {
    move_node_words(parts.options, parts.storage);
    return parts;
  }
  return world_.diagnostics.explain(
      Error::of(ErrorKind::kInvalid, "open"),
      "the description names no file; write driver=qcow2,file.filename=disk.qcow2, or "
      "driver=file,filename=disk.raw for the bytes of a file as they are");
}

const FormatDriver* Graph::find_format(std::string_view name) const {
  return find_by_name(drivers_.formats, name);
}

const StorageDriver* Graph::find_storage(std::string_view name) const {
  return find_by_name(drivers_.storages, name);
}

Task<SharedSecret> Graph::find_secret(SecretWish wish) const {
  if (wish.place == SecretPlace::kDescription) wish.option = prefix_ + wish.option;
  if (secrets_) co_return co_await secrets_->find(std::move(wish)).result();
  co_return world_.diagnostics.explain(Error::of(ErrorKind::kNotFound, "open"),
                                       wish.image + ": needs a passphrase, and none can be had");
}

Task<std::unique_ptr<SharedStorage>> Graph::open_storage(Options options, OpenMode mode) {
  const std::string driver_name = options.take("driver").value_or("file");
  const StorageDriver* driver = find_storage(driver_name);
  if (!driver) {
    co_return world_.diagnostics.explain(Error::of(ErrorKind::kUnsupported, "open"),
                                         "there is no storage driver '" + driver_name + "'");
  }
  const std::string shown = options.get("filename").value_or(driver_name);
  Result<void> taken = take_node_words(options, mode, world_.diagnostics);
  if (!taken.ok()) co_return at_node(taken.error(), world_.diagnostics.add_node(shown));
  Result<std::unique_ptr<StorageNode>> node =
      co_await driver->open(world_, std::move(options), mode).result();
  if (!node.ok() && node.error().node == 0) {
    co_return at_node(node.error(), world_.diagnostics.add_node(shown));
  }
  std::unique_ptr<StorageNode> opened = co_await std::move(node);
  co_return std::make_unique<SharedStorage>(std::move(opened));
}

Task<void> Graph::create_storage(Options options, ByteCount size) {
  const std::string driver_name = options.take("driver").value_or("file");
  const StorageDriver* driver = find_storage(driver_name);
  if (!driver || !driver->create) {
    co_await fail(
        world_.diagnostics.explain(Error::of(ErrorKind::kUnsupported, "create"),
                                   "a storage of kind '" + driver_name + "' cannot be created"));
  }
  co_await driver->create(world_, options, size);
}

Task<ProbedFormat> Graph::probe_format(SharedStorage& storage) {
  std::unique_ptr<StorageAccess> access = co_await StorageAccess::open(storage, Shard::current());
  Buffer first = Shard::current().buffers().take(kProbeBytes);
  const auto length = static_cast<size_t>(std::min<uint64_t>(kProbeBytes, access->size().value()));
  MutableBytes bytes = first.first(length);
  if (length != 0) co_await access->read(HostOffset(0), MutableBuffers(bytes));
  ProbedFormat best;
  best.name = "raw";
  int best_score = 0;
  for (const FormatDriver& driver : drivers_.formats) {
    const int score = driver.probe ? driver.probe(bytes) : 0;
    if (score <= best_score) continue;
    best.name = driver.name;
    best_score = score;
  }
  if (best_score == 0) best.remains = co_await find_remains(*access);
  co_return std::move(best);
}

Task<FormatRemains> Graph::find_remains(StorageAccess& storage) const {
  for (const FormatDriver& driver : drivers_.formats) {
    if (!driver.find_remains) continue;
    FormatRemains remains = co_await driver.find_remains(world_, storage);
    if (remains.are_there()) co_return std::move(remains);
  }
  co_return FormatRemains();
}

Result<void> Graph::admit_as_raw(const SharedStorage& storage, const ProbedFormat& probed,
                                 bool read_only) const {
  const FormatRemains& remains = probed.remains;
  if (!remains.are_there()) return {};
  const std::string remedy = "; say -f " + remains.format + " if it is one, else -f raw";
  if (!read_only && !remains.is_overwritten) {
    return world_.diagnostics.explain(
        Error::of(ErrorKind::kDenied, "open"), storage.node->id(),
        "holds " + remains.what + ", and writing to it as raw could destroy a disk" + remedy);
  }
  world_.log.warning(storage.node->name() + ": taken as raw, but holds " + remains.what + remedy);
  return {};
}

Task<std::shared_ptr<DeviceNode>> Graph::open(ImageName name, OpenMode mode) {
  co_return co_await open_at_depth(std::move(name), mode, nullptr).result();
}

Task<std::shared_ptr<DeviceNode>> Graph::open_at_depth(ImageName name, OpenMode mode,
                                                       const ChainLink* above) {
  const std::string shown = name.text();
  const std::string snapshot = name.snapshot;
  ChainLink link;
  link.prefix = name.prefix;
  ImageParts parts = co_await take_apart(std::move(name));
  Options& described = parts.is_bare_storage ? parts.storage : parts.options;
  const DevicePolicy policy = co_await take_policy(described, mode.policy, world_.diagnostics);
  link.above = above;
  link.depth = above ? above->depth + 1 : 0;
  if (!parts.is_bare_storage) {
    link.below = co_await take_described_backing(parts.options, world_.diagnostics);
  }
  std::string format_name = parts.format;
  link.path = parts.path();
  link.is_part = is_part_of_file(parts);
  std::unique_ptr<SharedStorage> storage = co_await open_storage(std::move(parts.storage), mode);
  const bool was_probed = format_name.empty();
  if (was_probed) {
    Result<ProbedFormat> probed = co_await probe_format(*storage).result();
    Result<void> admitted;
    if (probed.ok()) admitted = admit_as_raw(*storage, probed.value(), mode.read_only);
    if (!probed.ok() || !admitted.ok()) {
      // Why it could not be read is the cause, not how the untouched storage closes.
      Result<void> closed = co_await storage->node->close().result();
      static_cast<void>(closed.ok());
      co_return probed.ok() ? admitted.error() : probed.error();
    }
    format_name = std::move(probed).value().name;
  }
  const FormatDriver* driver = find_format(format_name);
  if (!driver) {
    co_await storage->node->close();
    co_return world_.diagnostics.explain(Error::of(ErrorKind::kUnsupported, "open"),
                                         storage->node->id(),
                                         "unknown driver '" + format_name + "'");
  }
  if (was_probed && format_name == "raw") {
    parts.options.set("probed", "on");
    if (!mode.read_only) {
      world_.log.warning(
          shown +
          ": no format was given, and it looks like none; taken as raw. Writes that would make "
          "it look like another format are refused; say -f raw to allow them");
    }
  }
  const uint32_t node_id = storage->node->id();
  if (!snapshot.empty()) parts.options.set("snapshot", snapshot);
  Graph here(*this);
  here.prefix_ = link.prefix;
  FormatOpening opening{world_,    here, std::move(storage),
                        link.path, mode, std::move(parts.options)};
  Result<OpenedFormat> opened_format = co_await driver->open(std::move(opening)).result();
  if (!opened_format.ok()) co_return at_node(opened_format.error(), node_id);
  OpenedFormat opened = std::move(opened_format).value();
  Result<std::shared_ptr<DeviceNode>> backing =
      co_await open_backing(opened, link.path, mode, link).result();
  if (!backing.ok()) {
    // Nothing was changed yet; how the half-opened image closes adds nothing to why it could not be
    // opened.
    Result<void> closed = co_await opened.node->close().result();
    static_cast<void>(closed.ok());
    co_return at_node(backing.error(), node_id);
  }
  co_return std::make_shared<DeviceNode>(shown, node_id, std::move(opened.node),
                                         std::move(backing).value(), policy);
}

// Null: there is none, or it is not wanted.
Task<std::shared_ptr<DeviceNode>> Graph::open_backing(const OpenedFormat& format,
                                                      const std::string& path, OpenMode mode,
                                                      const ChainLink& above) {
  Diagnostics& diagnostics = world_.diagnostics;
  co_await check_described(above.below, format, diagnostics);
  if (mode.no_backing) {
    co_await check_backing_words(*this, above.below, format.backing_format);
    co_return std::shared_ptr<DeviceNode>();
  }
  if (above.below.is_none) co_return std::shared_ptr<DeviceNode>();
  const bool names_file = above.below.names_file();
  if (format.backing_name.empty() && !names_file) co_return std::shared_ptr<DeviceNode>();
  if (above.depth >= limits::kBackingDepthMax) {
    co_return diagnostics.explain(
        Error::of(ErrorKind::kLimit, "open"),
        "the backing chain is longer than " + std::to_string(limits::kBackingDepthMax) + " images");
  }
  const std::string recorded = above.below.options.get("driver").value_or(format.backing_format);
  auto admit = [&](Blocking token) {
    return gate_.admit(token, path, format.backing_name, recorded);
  };
  std::string admitted;
  if (!names_file) admitted = co_await run_blocking(world_.blocking, admit);
  ImageName name =
      backing_image_name(*this, above.below, std::move(admitted), format.backing_format);
  name.prefix = above.prefix + kBackingPrefix;
  const ImageParts parts = co_await take_apart(name);
  auto look = [&](Blocking token) -> Result<void> {
    for (const ChainLink* link = &above; link; link = link->above) {
      if (link->path.empty() || link->is_part || is_part_of_file(parts)) continue;
      if (!is_same_file(token, link->path, parts.path())) continue;
      return diagnostics.explain(
          Error::of(ErrorKind::kCorrupt, "open"),
          "backing file '" + name.text() + "' leads back to '" + link->path + "'");
    }
    return {};
  };
  co_await run_blocking(world_.blocking, look);
  OpenMode below = mode;
  below.read_only = true;
  below.policy = DevicePolicy();
  co_return co_await open_at_depth(std::move(name), below, &above).result();
}

}  // namespace ringdisk
